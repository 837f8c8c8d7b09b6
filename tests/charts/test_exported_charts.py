"""The charts of the three tutorials, exported for both generations, with the installer chart beside them."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from chart_checks import KUBERNETES, NOTEBOOKS, PLATFORM, findings, manifests, rendered_notes

from kaapana_nb.clients.helm import Helm
from kaapana_nb.contract.profiles import PROFILES, profile
from kaapana_nb.errors import PlatformError
from kaapana_nb.ship.chart_files import chart_files
from kaapana_nb.work.notebook import NotebookSpec

pytestmark = pytest.mark.charts

Chart = tuple[Path, NotebookSpec, str]
CASES = [pytest.param(path, name, id=f"{path.stem}-{name}") for path in NOTEBOOKS for name in PROFILES]


def written(spec: NotebookSpec, name: str, directory: Path) -> Path:
    """The workflow chart, written below `directory`."""
    for path, data in chart_files(spec, profile(name)).items():
        file = directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return directory / f"{spec.name}-workflow"


@pytest.fixture
def chart(request: pytest.FixtureRequest, helm: Helm, tmp_path: Path) -> Chart:
    path, name = request.param
    spec = NotebookSpec.read(path)
    workflow = written(spec, name, tmp_path / "extension")
    helm.update_dependencies(workflow)
    return workflow, spec, name


ALL = pytest.mark.parametrize("chart", [pytest.param(case.values, id=str(case.id)) for case in CASES], indirect=True)


@ALL
def test_lint(helm: Helm, chart: Chart) -> None:
    assert "WARNING" not in helm.lint(chart[0])


@ALL
def test_template(helm: Helm, chart: Chart) -> None:
    workflow, spec, name = chart
    for version in KUBERNETES:
        rendered = manifests(helm.template(workflow, sets=PLATFORM[name], kubernetes=version))
        assert [manifest["metadata"]["name"] for manifest in rendered] == [
            f"dag-{spec.name}",
            f"remove-dag-{spec.name}",
        ]
        assert [line for manifest in rendered for line in findings(manifest, version)] == []
        tag = profile(name).image_tag.format(
            abbr="kp", platform_version=PLATFORM[name].get("global.platform_version", "0.6.0"), version="0.1.0"
        )
        images = {manifest["spec"]["template"]["spec"]["containers"][0]["image"] for manifest in rendered}
        assert images == {f"registry.example.org/kaapana/dag-{spec.name}:{tag}"}


@ALL
def test_package_holds_all_that_the_platform_needs(helm: Helm, chart: Chart, tmp_path: Path) -> None:
    workflow, spec, name = chart
    packed = helm.package(workflow, tmp_path / "packed")
    assert packed.name == f"{spec.name}-workflow-0.1.0.tgz"
    with tarfile.open(packed) as archive:
        names = archive.getnames()
    root = f"{spec.name}-workflow"
    assert {f"{root}/Chart.yaml", f"{root}/values.yaml", f"{root}/README.md"} <= set(names)
    assert any(entry.startswith(f"{root}/charts/dag-installer-chart") for entry in names)
    away = helm.template(packed, sets=PLATFORM[name])
    assert [manifest["kind"] for manifest in manifests(away)] == ["Job", "Job"]


def test_a_chart_without_its_installer_is_refused(helm: Helm, tmp_path: Path) -> None:
    workflow = written(NotebookSpec.read(NOTEBOOKS[0]), "0.6", tmp_path)
    (tmp_path / "dag-installer-chart").rename(tmp_path / "elsewhere")
    with pytest.raises(PlatformError, match=r"helm dependency of .*-workflow failed"):
        helm.update_dependencies(workflow)


@pytest.mark.parametrize("name", PROFILES)
def test_the_notes_name_the_workflow(helm: Helm, tmp_path: Path, name: str) -> None:
    spec = NotebookSpec.read(NOTEBOOKS[0])
    workflow = written(spec, name, tmp_path)
    helm.update_dependencies(workflow)
    notes = rendered_notes(helm, workflow, PLATFORM[name])
    assert f"the workflow {spec.name} is being installed" in notes.lower()
    assert f"logs job/dag-{spec.name}" in notes
