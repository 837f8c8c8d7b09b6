"""What tests of charts share: the charts, what each platform sets, and what Kubernetes says of a manifest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from kaapana_nb.clients.helm import Helm

ROOT = Path(__file__).resolve().parents[2]
INSTALLER = ROOT / "charts" / "dag-installer-chart"
NOTEBOOKS = tuple(sorted((ROOT / "notebooks").glob("*.ipynb")))
KUBERNETES = ("1.27", "1.31", "1.37")
PLATFORM = {
    "0.6": {
        "global.registry_url": "registry.example.org/kaapana",
        "global.kaapana_build_version": "0.6.0",
        "global.admin_namespace": "admin",
        "global.services_namespace": "services",
        "global.pull_policy_images": "IfNotPresent",
        "global.hostname": "kaapana.example.org",
    },
    "0.1": {
        "global.registry_url": "registry.example.org/kaapana",
        "global.platform_abbr": "kp",
        "global.platform_version": "0.1.3",
        "global.fast_data_dir": "/home/kaapana",
        "global.pull_policy_jobs": "IfNotPresent",
        "global.hostname": "kaapana.example.org",
    },
}
"""What each generation of the platform sets when it installs an extension."""


def manifests(text: str) -> list[dict[str, Any]]:
    """The YAML documents of a rendered chart."""
    return [document for document in yaml.safe_load_all(text) if document]


def findings(manifest: dict[str, Any], version: str) -> Iterator[str]:
    """What Kubernetes of that version would not take; a kind without a schema is a finding too."""
    try:
        checked = kubernetes_validate.validate(manifest, version, strict=True)
    except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
        yield f"{manifest['kind']} {version}: {error.message}"
    else:
        if checked != version:
            yield f"{manifest['kind']}: there are no schemas of {version}, {checked} was taken"


def rendered_notes(helm: Helm, chart: Path, sets: dict[str, str]) -> str:
    """The chart's NOTES.txt, which `helm template` leaves out: the same text in a manifest, added to the chart."""
    (chart / "notes.txt").write_bytes((chart / "templates" / "NOTES.txt").read_bytes())
    (chart / "templates" / "notes.yaml").write_text('notes: {{ tpl (.Files.Get "notes.txt") . | toJson }}\n')
    rendered = manifests(helm.template(chart, sets=sets))
    (notes,) = [manifest["notes"] for manifest in rendered if "notes" in manifest]
    return str(notes)
