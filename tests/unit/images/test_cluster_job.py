"""The build job: valid for every Kubernetes that the product supports, deterministic, and without a secret."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from typing import TYPE_CHECKING

import pytest

from kaapana_nb.errors import BuildError, UsageError
from kaapana_nb.reference import ImageReference
from kaapana_nb.ship.cluster_job import ClusterJob, render_job

if TYPE_CHECKING:
    from pathlib import Path

VERSIONS = [f"1.{minor}" for minor in range(27, 38)]


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "otsus-method"
    (directory / "files").mkdir(parents=True)
    (directory / "Dockerfile").write_text("FROM local-only/base-python-cpu:latest\nRUN true\n")
    (directory / "files/app.py").write_text("print(1)\n")
    return directory


def job(**changes: object) -> ClusterJob:
    values = {
        "target": ImageReference.parse("registry.example.org/tools/otsus-method:0.1.0"),
        "base": ImageReference.parse("registry.example.org/base-python-cpu:0.6"),
        "secret": "registry-secret",
        "namespace": "project-admin",
    }
    return ClusterJob(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("version", VERSIONS)
def test_valid_for_kubernetes(context, version):
    validate = pytest.importorskip("kubernetes_validate")
    items = json.loads(render_job(context, job()))["items"]
    assert [item["kind"] for item in items] == ["ConfigMap", "Job"]
    for item in items:
        validate.validate(item, version, strict=True)
    items[1]["spec"]["template"]["spec"]["containers"][0]["comand"] = []
    with pytest.raises(validate.ValidationError):
        validate.validate(items[1], version, strict=True)


def test_what_the_job_does(context):
    text = render_job(context, job(plain_http=True))
    assert text == render_job(context, job(plain_http=True))
    config_map, rendered = json.loads(text)["items"]
    pod = rendered["spec"]["template"]["spec"]
    arguments = pod["containers"][0]["args"]
    assert (
        "context:local-only/base-python-cpu:latest=docker-image://registry.example.org/base-python-cpu:0.6" in arguments
    )
    assert arguments[-1].startswith("type=image,name=registry.example.org/tools/otsus-method:0.1.0,push=true")
    assert arguments[-1].endswith("registry.insecure=true")
    assert pod["volumes"][3]["secret"]["secretName"] == "registry-secret"
    assert all(container["securityContext"]["runAsNonRoot"] for container in pod["containers"] + pod["initContainers"])
    packed = base64.b64decode(config_map["binaryData"]["context.tar.gz"])
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as archive:
        assert archive.getnames() == ["Dockerfile", "files/app.py"]


def test_refusals(context):
    for changes in ({"secret": "a b"}, {"namespace": "../x"}, {"base": ImageReference.parse("local-only/x:1")}):
        with pytest.raises(UsageError):
            job(**changes)
    (context / "files/big").write_bytes(b"".join(str(number).encode() * 3 for number in range(400_000)))
    with pytest.raises(BuildError, match="fit into a job"):
        render_job(context, job())
