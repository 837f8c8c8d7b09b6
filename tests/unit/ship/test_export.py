from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import nbformat
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from kaapana_nb.contract.profiles import PROFILES, profile
from kaapana_nb.errors import KaapanaNbError, NotebookError, UsageError
from kaapana_nb.ship.export import ExtensionFiles, export_notebook, write_extension
from kaapana_nb.ship.own_wheel import WHEEL_NAME, own_wheel
from kaapana_nb.ship.requirements import pins_for

ALGORITHM = """
from kaapana_nb import Batch, BatchElement, algorithm, run

@algorithm
def my_count(element: BatchElement) -> dict:
    return {"files": len(element.files())}
"""
RUN = "run(my_count, Batch.from_environ())"
BASE = "processing-containers/my-count"
Write = Callable[..., Path]


@pytest.fixture
def notebook(tmp_path: Path) -> Write:
    def write(*sources: str, name: str = "My Notebook.ipynb") -> Path:
        document = new_notebook(metadata={"authors": [{"name": "Planted Person"}], "widgets": {"state": "Planted"}})
        for source in sources:
            cell = new_code_cell(source, metadata={"execution": {"iopub.execute_input": "2026-01-01"}})
            cell.execution_count = 7
            cell.outputs = [new_output("stream", name="stdout", text="Planted^Name")]
            document.cells.append(cell)
        looked = new_code_cell("print('only for me')", metadata={"tags": ["explore"]})
        document.cells += [looked, new_markdown_cell("# Words", attachments={"a.png": {"image/png": "UGxhbnRlZA=="}})]
        path = tmp_path / name
        path.write_text(nbformat.writes(document))
        return path

    return write


def test_the_processing_container_is_complete(notebook: Write) -> None:
    files = export_notebook(notebook(ALGORITHM, RUN), profile("0.6")).files
    assert sorted(path for path in files if "/dag-installer-chart/" not in path) == [
        "extension/docker/Dockerfile",
        "extension/docker/files/dag_my_count.py",
        "extension/docker/files/my_count/MyCountOperator.py",
        "extension/my-count-workflow/Chart.yaml",
        "extension/my-count-workflow/README.md",
        "extension/my-count-workflow/requirements.yaml",
        "extension/my-count-workflow/templates/NOTES.txt",
        "extension/my-count-workflow/values.yaml",
        f"{BASE}/Dockerfile",
        f"{BASE}/files/my_count.ipynb",
        f"{BASE}/files/processing-container.json",
        f"{BASE}/files/requirements.txt",
        f"{BASE}/files/wheels/{WHEEL_NAME}",
    ]
    dockerfile = files[f"{BASE}/Dockerfile"].decode()
    assert dockerfile.startswith("FROM local-only/base-python-cpu:latest\n")
    for line in ('LABEL IMAGE="my-count"', 'LABEL VERSION="0.1.0"', 'LABEL BUILD_IGNORE="False"'):
        assert line in dockerfile.splitlines()
    assert '"kaapana_nb", "execute", "/kaapana/app/my_count.ipynb"' in dockerfile
    requirements = files[f"{BASE}/files/requirements.txt"].decode()
    assert f"pydicom=={__import__('pydicom').__version__}" in requirements.splitlines()
    assert f"papermill=={__import__('papermill').__version__}" in requirements.splitlines()


def test_nothing_but_the_cells_leaves(notebook: Write) -> None:
    data = export_notebook(notebook(ALGORITHM, RUN), profile("0.6")).files[f"{BASE}/files/my_count.ipynb"]
    assert b"Planted" not in data
    assert b"UGxhbnRlZA" not in data
    assert b"only for me" not in data
    document = nbformat.reads(data.decode(), as_version=4)
    nbformat.validate(document)
    assert [cell.cell_type for cell in document.cells] == ["code", "code", "markdown"]
    assert all(cell.execution_count is None and cell.outputs == [] for cell in document.cells[:2])


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_the_same_notebook_gives_the_same_bytes(notebook: Write, name: str) -> None:
    path = notebook(ALGORITHM, RUN)
    first, second = (export_notebook(path, profile(name)) for _ in range(2))
    assert first.files == second.files
    assert first.record() == second.record()


def test_profiles_differ_where_the_platforms_do(notebook: Write) -> None:
    old = export_notebook(notebook(ALGORITHM, RUN), profile("0.1")).files[f"{BASE}/Dockerfile"].decode()
    assert "FROM local-only/base-python-cpu:0.1.0" in old
    assert 'LABEL CI_IGNORE="False"' in old


def test_modules_beside_the_notebook_come_along(notebook: Write, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import yours.inner\nimport json\n")
    (tmp_path / "yours").mkdir()
    (tmp_path / "yours" / "__init__.py").write_text("")
    (tmp_path / "yours" / "inner.py").write_text("import yaml\n")
    (tmp_path / "unused.py").write_text("")
    files = export_notebook(notebook("import mine", ALGORITHM, RUN), profile("0.6")).files
    names = {name.removeprefix(f"{BASE}/files/") for name in files}
    assert {"mine.py", "yours/__init__.py", "yours/inner.py"} <= names
    assert "unused.py" not in names
    assert "# imported by the notebook\npyyaml==" in files[f"{BASE}/files/requirements.txt"].decode()
    assert "COPY files/yours /kaapana/app/yours" in files[f"{BASE}/Dockerfile"].decode()


def test_a_module_linked_from_elsewhere_does_not_come_along(notebook: Write, tmp_path: Path) -> None:
    outside = tmp_path.parent / "outside.py"
    outside.write_text("secret = 1")
    (tmp_path / "linked.py").symlink_to(outside)
    with pytest.raises(NotebookError, match=r"linked\.py"):
        export_notebook(notebook("import linked", ALGORITHM, RUN), profile("0.6"))


def test_an_import_that_is_not_installed_is_told(notebook: Write) -> None:
    with pytest.raises(NotebookError, match="no_such_module"):
        export_notebook(notebook("import no_such_module", ALGORITHM, RUN), profile("0.6"))


def test_what_a_distribution_needs_is_pinned_too() -> None:
    names = {pin.name for pin in pins_for(["SimpleITK"])}
    assert {"simpleitk", "numpy", "pydicom", "papermill", "ipykernel", "nbclient", "traitlets"} <= names
    assert "kaapana-nb" not in names
    assert "jupyterlab" not in names


def test_our_wheel_is_a_wheel() -> None:
    data = own_wheel()
    assert data == own_wheel()
    with zipfile.ZipFile(BytesIO(data)) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        record = archive.read(next(name for name in names if name.endswith("/RECORD"))).decode()
    assert "kaapana_nb/work/execute.py" in names
    assert not any(name.startswith("kaapana_nb/emulator/") or "__pycache__" in name for name in names)
    assert {line.split(",")[0] for line in record.splitlines()} == set(names)


def test_writing_again_changes_nothing(notebook: Write, tmp_path: Path) -> None:
    extension = export_notebook(notebook(ALGORITHM, RUN), profile("0.6"))
    target = tmp_path / "out"
    paths = write_extension(extension, target)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths[:-1]}
    write_extension(extension, target)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before} == before
    record = json.loads((target / "export.json").read_text())
    assert record["files"][f"{BASE}/Dockerfile"] == hashlib.sha256(extension.files[f"{BASE}/Dockerfile"]).hexdigest()


def test_what_a_user_edited_is_not_lost(notebook: Write, tmp_path: Path) -> None:
    extension = export_notebook(notebook(ALGORITHM, RUN), profile("0.6"))
    target = tmp_path / "out"
    write_extension(extension, target)
    dockerfile = target / BASE / "Dockerfile"
    dockerfile.write_text("FROM mine")
    with pytest.raises(UsageError, match="Dockerfile"):
        write_extension(extension, target)
    assert dockerfile.read_text() == "FROM mine"
    write_extension(extension, target, force=True)
    assert dockerfile.read_bytes() == extension.files[f"{BASE}/Dockerfile"]


def test_leftovers_of_an_earlier_export_go(notebook: Write, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("x = 1\n")
    target = tmp_path / "out"
    write_extension(export_notebook(notebook("import mine", ALGORITHM, RUN), profile("0.6")), target)
    (target / BASE / "files" / "notes.txt").write_text("a user's own file")
    write_extension(export_notebook(notebook(ALGORITHM, RUN), profile("0.6")), target)
    assert not (target / BASE / "files" / "mine.py").exists()
    assert (target / BASE / "files" / "notes.txt").exists()


def test_nothing_is_written_through_a_link(notebook: Write, tmp_path: Path) -> None:
    target, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    target.mkdir()
    (target / "processing-containers").symlink_to(elsewhere)
    with pytest.raises(UsageError, match="link"):
        write_extension(export_notebook(notebook(ALGORITHM, RUN), profile("0.6")), target)
    assert list(elsewhere.iterdir()) == []


@given(st.text(min_size=1, max_size=40))
def test_no_path_leaves_the_directory(name: str) -> None:
    try:
        files = ExtensionFiles(name="x", version="0.1.0", profile="0.6", program="x.py", runner="", files={name: b""})
    except UsageError:
        return
    root = Path("/export")
    assert all((root / path).resolve().is_relative_to(root) for path in files.files)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
@given(name=st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,60}", fullmatch=True))
def test_whatever_an_algorithm_is_called(notebook: Write, name: str) -> None:
    try:
        extension = export_notebook(notebook(ALGORITHM.replace("my_count", name), f"run({name}, b)"), profile("0.6"))
    except KaapanaNbError as error:
        assert error.remedy
        return
    roots = (f"processing-containers/{extension.name}/", "extension/")
    assert all(path.startswith(roots) for path in extension.files)
    assert all(compile(data, path, "exec") for path, data in extension.files.items() if path.endswith(".py"))


def test_as_a_script_it_needs_neither_papermill_nor_a_kernel(notebook: Write) -> None:
    files = export_notebook(notebook(ALGORITHM, RUN), profile("0.6"), script=True).files
    script = files[f"{BASE}/files/my_count.py"].decode()
    assert "def my_count(" in script
    assert RUN in script
    assert "only for me" not in script
    requirements = files[f"{BASE}/files/requirements.txt"].decode()
    assert "pydicom==" in requirements
    assert "papermill" not in requirements
    assert '"kaapana_nb", "execute", "/kaapana/app/my_count.py"' in files[f"{BASE}/Dockerfile"].decode()


def test_a_magic_is_no_script(notebook: Write) -> None:
    with pytest.raises(NotebookError, match="Cell 1"):
        export_notebook(notebook("%matplotlib inline", ALGORITHM, RUN), profile("0.6"), script=True)


SEED_SCRIPT = """
import json
import os
from pathlib import Path

import pydicom

run = Path("/", os.environ["WORKFLOW_DIR"])
for element in sorted((run / os.environ["BATCH_NAME"]).iterdir()):
    target = element / os.environ["OPERATOR_OUT_DIR"]
    target.mkdir(exist_ok=True)
    first = sorted((element / os.environ["OPERATOR_IN_DIR"]).glob("*.dcm"))[0]
    study = pydicom.dcmread(first, stop_before_pixels=True).StudyInstanceUID
    (target / f"{element.name}.json").write_text(json.dumps({"study_id": study}))
"""


def test_a_script_in_the_seeds_manner_goes_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "extract_study_id.py"
    path.write_text(SEED_SCRIPT)
    files = export_notebook(path, profile("0.1")).files
    base = "processing-containers/extract-study-id"
    assert files[f"{base}/files/extract_study_id.py"].decode() == SEED_SCRIPT
    assert not any(name.endswith(".whl") for name in files)
    requirements = files[f"{base}/files/requirements.txt"].decode().splitlines()
    assert f"pydicom=={__import__('pydicom').__version__}" in requirements
    assert not any(line.startswith("papermill") for line in requirements)
    assert 'CMD ["python3", "-u", "/kaapana/app/extract_study_id.py"]' in files[f"{base}/Dockerfile"].decode()
    assert 'dag_id="extract-study-id"' in files["extension/docker/files/dag_extract_study_id.py"].decode()


def test_a_notebook_without_an_algorithm_runs_once_per_run(notebook: Write) -> None:
    files = export_notebook(notebook("title = 'x'", name="my_report.ipynb"), profile("0.6")).files
    assert "processing-containers/my-report/files/my_report.ipynb" in files
    assert json.loads(files["processing-containers/my-report/files/processing-container.json"])["name"] == "my-report"


def test_what_an_algorithm_declares_reaches_the_files(notebook: Write) -> None:
    options = "@algorithm(memory_mib=700, version='1.2.3', apt=['libgl1'], requirements=['pyyaml==6.0.1'])"
    files = export_notebook(notebook(ALGORITHM.replace("@algorithm", options), RUN), profile("0.6")).files
    dockerfile = files[f"{BASE}/Dockerfile"].decode()
    assert "apt-get install -y --no-install-recommends libgl1 " in dockerfile
    assert 'LABEL VERSION="1.2.3"' in dockerfile
    operator = files["extension/docker/files/my_count/MyCountOperator.py"].decode()
    assert "ram_mem_mb=1200," in operator
    assert "ram_mem_mb_lmt=1900," in operator
