"""Exported operators and DAGs in a real Airflow 2.11, on both generations' constructors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from airflow_environment import BUILD_VERSION, REGISTRY, Airflow
from nbformat.v4 import new_code_cell, new_notebook

from kaapana_nb.contract.profiles import PROFILES, profile
from kaapana_nb.ship.chain import Chain, chain_for, chain_of_unknown
from kaapana_nb.ship.dag_files import dag_files
from kaapana_nb.ship.forms import workflow_form
from kaapana_nb.work.notebook import NotebookSpec

pytestmark = pytest.mark.platform

ROOT = Path(__file__).resolve().parents[2]
TUTORIALS = tuple(sorted((ROOT / "notebooks").glob("*.ipynb")))

# How the DAG installer finds images: by this expression over the text of every .py. It fills in the names of the
# second table and takes whatever else is in braces as it stands, so such an image is never pulled.
LITERAL = re.compile(
    r"image=(\"|'|f\"|f')([\w\-\\{\}.]+)(\/[\w\-\.]+|)\/([\w\-\.]+):([\w\-\\{\}\.]+)(\"|'|f\"|f')",
)
KNOWN = {
    "0.6": {
        "{DEFAULT_REGISTRY}": REGISTRY,
        "{default_registry}": REGISTRY,
        "{DOCKER_VERSION}": BUILD_VERSION,
        "{default_version_identifier}": BUILD_VERSION,
    },
    "0.1": {
        "{default_registry}": REGISTRY,
        "{default_platform_abbr}": "kp",
        "{default_platform_version}": "0.1.3",
    },
}
TASKS = {
    "get input": "get-input-data",
    "convert": "dcm-converter",
    "DICOM SEG": "nrrd2dcmseg",
    "send to PACS": "dcmsend",
    "clean": "workflow-cleaner",
}
STORE = {"0.6": "transfer-files-with-minio", "0.1": "minio-actions-put"}

SENDS = '''
import pydicom
from kaapana_nb import Batch, algorithm, run

@algorithm
def rewrite_headers(datasets: list[pydicom.Dataset]) -> pydicom.Dataset:
    """Headers with \\'quotes\\', "quotes", \\\\ backslashes, {braces} and \\n line ends."""
    return datasets[0]

run(rewrite_headers, Batch.from_environ())
'''
PARAMETERS = '''
from typing import Annotated, Literal
import SimpleITK as sitk
from annotated_types import Ge, Lt
from kaapana_nb import Batch, algorithm, run

@algorithm(version="1.2.3", memory_mib=700)
def every_kind(
    image: sitk.Image, *, count: int, mode: Literal["a", "b"] = "a", share: Annotated[float, Ge(0), Lt(1)] = 0.5,
    deep: bool = False, label: str | None = None,
) -> list[sitk.Image]:
    """Every kind of parameter.

    Parameters
    ----------
    label
        Text with "quotes" and \\'quotes\\'.
    """
    return [image]

run(every_kind, Batch.from_environ())
'''
NO_ALGORITHM = "print('once per workflow run')"
SCRIPT = "import os\nprint(os.environ['WORKFLOW_DIR'])\n"


def all_specs(directory: Path) -> Iterator[NotebookSpec]:
    """The tutorials, and what they do not show."""
    for path in TUTORIALS:
        yield NotebookSpec.read(path)
    for name, source in {"sends": SENDS, "parameters": PARAMETERS, "count_once": NO_ALGORITHM}.items():
        path = directory / f"{name}.ipynb"
        path.write_text(nbformat.writes(new_notebook(cells=[new_code_cell(source)])))
        yield NotebookSpec.read(path)
    script = directory / "own_loop.py"
    script.write_text(SCRIPT)
    yield NotebookSpec.read(script)


def chain_of(spec: NotebookSpec) -> Chain:
    return chain_for(spec.algorithm) if spec.algorithm else chain_of_unknown(batch_level=not spec.is_script)


def install(specs: list[NotebookSpec], name: str, directory: Path) -> None:
    """Put the Python files where the DAG image puts them."""
    for spec in specs:
        for path, data in dag_files(spec, profile(name)).items():
            if path.startswith("files/"):
                file = directory / path.removeprefix("files/")
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)


class Installed:
    """All exports of one generation, and what Airflow made of them."""

    def __init__(self, airflow: Airflow, name: str, directory: Path) -> None:
        self.name = name
        self.specs = list(all_specs(directory))
        self.directory = directory / "dags"
        install(self.specs, name, self.directory)
        self.found = airflow.read_dags(self.directory, name)

    def dag(self, spec: NotebookSpec) -> dict[str, Any]:
        found: dict[str, Any] = self.found["dags"][spec.name]
        return found


@pytest.fixture(scope="session", params=sorted(PROFILES))
def installed(request: pytest.FixtureRequest, airflow: Airflow, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(airflow, request.param, tmp_path_factory.mktemp("exports"))


def test_airflow_imports_every_module(installed: Installed) -> None:
    assert installed.found["import_errors"] == {}
    assert sorted(installed.found["dags"]) == sorted(spec.name for spec in installed.specs)
    assert len(installed.specs) == len(TUTORIALS) + 4


def test_tasks_stand_in_the_order_of_the_chain(installed: Installed) -> None:
    for spec in installed.specs:
        names = {**TASKS, "algorithm": spec.name, "object store": STORE[installed.name]}
        order = [names.get(step, step) for step in chain_of(spec).steps]
        dag = installed.dag(spec)
        assert dag["order"] == order, spec.name
        before = [[], *([name] for name in order[:-1])]
        assert [dag["tasks"][name]["after"] for name in order] == before, spec.name


def test_directories_lead_from_task_to_task(installed: Installed) -> None:
    for spec in installed.specs:
        chain, tasks = chain_of(spec), installed.dag(spec)["tasks"]
        source = "dcm-converter" if chain.convert else chain.after or "get-input-data"
        assert tasks[spec.name]["in_dir"] == source
        assert tasks[spec.name]["out_dir"] == spec.name
        if chain.suffixes:
            store = tasks[STORE[installed.name]]
            assert store["sources"] == [spec.name]
            assert store["suffixes"] == list(chain.suffixes)
        if chain.segmentation:
            assert tasks["nrrd2dcmseg"]["in_dir"] == "get-input-data"
            assert tasks["dcmsend"]["in_dir"] == "nrrd2dcmseg"
        elif chain.send:
            assert tasks["dcmsend"]["in_dir"] == spec.name


def test_the_platform_finds_form_owner_and_visibility(installed: Installed) -> None:
    for spec in installed.specs:
        dag = installed.dag(spec)
        assert dag["ui_visible"] is True
        assert dag["owner"] == "kaapana"
        if spec.algorithm:
            assert dag["ui_forms"] == workflow_form(spec.algorithm)
        assert "single_execution" in dag["ui_forms"]["workflow_form"]["properties"]
    (spec,) = [spec for spec in installed.specs if spec.name == "every-kind"]
    form = installed.dag(spec)["ui_forms"]["workflow_form"]
    assert form["properties"]["mode"]["enum"] == ["a", "b"]
    assert form["required"] == ["count"]


def test_the_installer_resolves_every_image_to_what_the_operator_runs(installed: Installed) -> None:
    for spec in installed.specs:
        texts = [
            data.decode() for path, data in dag_files(spec, profile(installed.name)).items() if path.endswith(".py")
        ]
        assert sum(text.count("image=") for text in texts) == 1
        (match,) = [match for text in texts for match in LITERAL.finditer(text)]
        resolved = f"{match[2]}{match[3]}/{match[4]}:{match[5]}"
        for placeholder, value in KNOWN[installed.name].items():
            resolved = resolved.replace(placeholder, value)
        assert "{" not in resolved
        assert resolved == installed.dag(spec)["tasks"][spec.name]["image"]
        assert f"/{spec.name}:" in resolved


def test_resources_are_those_of_the_algorithm(installed: Installed) -> None:
    (spec,) = [spec for spec in installed.specs if spec.name == "every-kind"]
    request, limit = installed.dag(spec)["tasks"][spec.name]["memory_mib"]
    assert 700 < request < limit
    assert limit > 2 * 700


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_what_the_platform_refuses_is_refused_here(airflow: Airflow, tmp_path: Path, name: str) -> None:
    other = "0.1" if name == "0.6" else "0.6"
    spec = NotebookSpec.read(ROOT / "notebooks" / "otsus_method.ipynb")
    install([spec], other, tmp_path / "dags")
    good = (tmp_path / "dags" / "dag_otsus_method.py").read_text()
    (tmp_path / "dags" / "dag_of_the_other_generation.py").write_text(good)
    (tmp_path / "dags" / "dag_otsus_method.py").unlink()
    head = "from airflow.models import DAG\nfrom datetime import datetime\n"
    head += "from kaapana.operators.DcmSendOperator import DcmSendOperator\n"
    head += "dag = DAG('d', start_date=datetime(2026, 1, 1), schedule_interval=None)\n"
    (tmp_path / "dags" / "dag_unknown_argument.py").write_text(f"{head}DcmSendOperator(dag=dag, levels='batch')\n")
    (tmp_path / "dags" / "dag_syntax.py").write_text(f"{head}def\n")
    errors = airflow.read_dags(tmp_path / "dags", name)["import_errors"]
    said = {Path(path).stem: text.strip().splitlines()[-1] for path, text in errors.items()}
    assert set(said) == {"dag_of_the_other_generation", "dag_unknown_argument", "dag_syntax"}
    missing = profile(other).get_input
    assert f"No module named 'kaapana.operators.{missing}'" in said["dag_of_the_other_generation"]
    assert "Invalid arguments were passed" in errors[str(tmp_path / "dags" / "dag_unknown_argument.py")]
    assert "SyntaxError" in said["dag_syntax"]
