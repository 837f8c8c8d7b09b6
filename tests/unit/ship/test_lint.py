from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import nbformat
import numpy as np
import pytest
import SimpleITK as sitk
from nbformat.v4 import new_code_cell, new_notebook

from kaapana_nb.contract.profiles import PROFILES, profile
from kaapana_nb.data.batch import Batch
from kaapana_nb.errors import AlgorithmError, BatchError, NotebookError
from kaapana_nb.ship.chain import chain_for
from kaapana_nb.ship.dag_files import dag_module
from kaapana_nb.ship.export import export_notebook
from kaapana_nb.ship.lint import INSTALLER_PATTERN, lint
from kaapana_nb.ship.segmentation_preflight import mask_problems, preview_segmentation
from kaapana_nb.ship.task_api import processing_container
from kaapana_nb.work.notebook import NotebookSpec

ROOT = Path(__file__).parents[3]


def spec_of(
    tmp_path: Path, signature: str, decorator: str = "@algorithm(memory_mib=100)", name: str = "probe"
) -> NotebookSpec:
    source = f"from kaapana_nb import algorithm, run\n{decorator}\ndef {name}{signature}: ...\nrun({name}, batch)"
    path = tmp_path / "probe.ipynb"
    path.write_text(nbformat.writes(new_notebook(cells=[new_code_cell(source)])))
    return NotebookSpec.read(path)


@pytest.mark.parametrize("name", sorted(PROFILES))
@pytest.mark.parametrize("notebook", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_the_tutorials_fall_into_no_trap(notebook: Path, name: str) -> None:
    assert lint(NotebookSpec.read(notebook), profile(name)) == ()


def test_a_mask_must_be_one_image(tmp_path: Path) -> None:
    decorator = "@algorithm(memory_mib=100, mask='liver')"
    for result in ("dict", "list[sitk.Image]", "dict[str, sitk.Image]"):
        (trap,) = lint(spec_of(tmp_path, f"(image: sitk.Image) -> {result}", decorator), profile())
        assert trap.severity == "error"
        assert "one image per series" in trap.problem
    assert lint(spec_of(tmp_path, "(image: sitk.Image) -> sitk.Image", decorator), profile()) == ()


def test_an_anatomy_must_have_a_code(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "(image: sitk.Image) -> sitk.Image", "@algorithm(memory_mib=100, mask='blob')")
    with pytest.raises(NotebookError, match="blob"):
        export_notebook(spec.path, profile())


def test_undeclared_memory_and_long_names_are_warned_of(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "(image: sitk.Image) -> dict", "@algorithm", name="a_very_long_name_of_an_algorithm")
    assert [trap.severity for trap in lint(spec, profile())] == ["warning", "warning"]


@pytest.mark.parametrize(
    "decorator",
    ["version='1'", "memory_mib=0", "memory_mib='2'", "apt='libgl1'", "apt=['a; rm -rf /']", "mask='x\"y'", "colour=1"],
)
def test_declarations_are_checked_when_a_notebook_is_read(tmp_path: Path, decorator: str) -> None:
    with pytest.raises(AlgorithmError):
        spec_of(tmp_path, "(image: sitk.Image) -> dict", f"@algorithm({decorator})")


@pytest.mark.parametrize(
    ("signature", "decorator", "steps"),
    [
        ("(image: sitk.Image) -> sitk.Image", "mask='liver'", "get input, convert, algorithm, DICOM SEG, send to PACS"),
        ("(image: sitk.Image) -> sitk.Image", "", "get input, convert, algorithm, object store"),
        ("(data: list[pydicom.Dataset]) -> dict", "", "get input, algorithm, object store"),
        ("(data: list[pydicom.Dataset]) -> pydicom.Dataset", "", "get input, algorithm, send to PACS"),
        ("(batch: Batch) -> dict", "input_operator='other-one'", "get input, other-one, algorithm, object store"),
        ("(volume: SeriesVolume) -> 'dict[str, sitk.Image]'", "", "get input, convert, algorithm, object store"),
    ],
)
def test_the_chain_fits_the_types(tmp_path: Path, signature: str, decorator: str, steps: str) -> None:
    spec = spec_of(tmp_path, signature, f"@algorithm(memory_mib=100, {decorator})")
    assert spec.algorithm is not None
    assert ", ".join(chain_for(spec.algorithm).steps) == f"{steps}, clean"


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_images_are_found_and_the_form_has_every_parameter(tmp_path: Path, name: str) -> None:
    signature = "(image: sitk.Image, *, level: float = 0.5, mode: Literal['a', 'b'] = 'a', seed: int | None = None)"
    spec = spec_of(tmp_path, f"{signature} -> dict")
    files = export_notebook(spec.path, profile(name)).files
    operator = files["extension/docker/files/probe/ProbeOperator.py"].decode()
    ((_, registry, _, image, _, _),) = INSTALLER_PATTERN.findall(operator)
    assert (registry.strip("{}").lower(), image) == ("default_registry", "probe")
    scope: dict[str, object] = {}
    module = dag_module(spec, profile(name))
    exec(module[module.index("ui_forms") : module.index("args =")], scope)
    properties = scope["ui_forms"]["workflow_form"]["properties"]  # type: ignore[index]
    assert list(properties) == ["level", "mode", "seed", "single_execution"]
    assert properties["level"]["type"] == "number"
    assert properties["mode"]["enum"] == ["a", "b"]
    assert properties["seed"]["default"] == ""


def test_words_of_a_notebook_make_the_installer_pull_nothing(tmp_path: Path) -> None:
    evil = "image='evil.example.org/team/x:1'"
    doc = f'    """Do {evil} it.\n\n    Parameters\n    ----------\n    a\n        As {evil} says.\n    """'
    source = (
        "from kaapana_nb import algorithm, run\n@algorithm(memory_mib=100)\n"
        f"def probe(image: sitk.Image, *, a: str = {evil!r}) -> dict:\n{doc}\nrun(probe, batch)"
    )
    path = tmp_path / "probe.ipynb"
    path.write_text(nbformat.writes(new_notebook(cells=[new_code_cell(source)])))
    files = export_notebook(path, profile()).files
    found = [
        match
        for name, data in files.items()
        if name.startswith("extension/docker/") and name.endswith(".py")
        for match in INSTALLER_PATTERN.findall(data.decode())
    ]
    assert len(found) == 1
    assert "evil" not in str(found)


def test_the_task_api_gets_the_same_parameters(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "(image: sitk.Image, *, flag: bool = True, mode: Literal['a', 'b'] = 'a') -> dict")
    document = json.loads(processing_container(spec, "/kaapana/app/probe.ipynb"))
    assert document["api_version"] == 1
    (template,) = document["templates"]
    assert [(row["name"], row["value"], row.get("choices")) for row in template["env"]] == [
        ("FLAG", "True", None),
        ("MODE", "a", ["a", "b"]),
    ]
    assert template["command"][-4:] == ["--input", "/home/kaapana/input", "--output", "/home/kaapana/output"]
    for key in ("identifier", "description", "inputs", "outputs", "env"):
        assert key in template


TEXT = {"type": "string"}
MOUNT = {
    "type": "object",
    "required": ["name", "mounted_path"],
    "additionalProperties": False,
    "properties": {
        "name": TEXT,
        "mounted_path": TEXT,
        "description": TEXT,
        "scale_rule": {
            "type": "object",
            "properties": {
                "scale_factor": {"type": "integer"},
                "type": {"enum": ["limit", "request"]},
                "mode": {"enum": ["sum", "max_file_size", "max_item_sum"]},
            },
        },
    },
}
VARIABLE = {
    "type": "object",
    "required": ["name", "value"],
    "additionalProperties": False,
    "properties": {"name": TEXT, "value": TEXT, "choices": {"type": "array", "items": TEXT}, "description": TEXT},
}
RESOURCES = {"type": "object", "properties": {"limits": {"type": "object"}, "requests": {"type": "object"}}}
TASK_API = {
    "type": "object",
    "required": ["name", "description", "api_version", "templates"],
    "additionalProperties": False,
    "properties": {
        "name": TEXT,
        "description": TEXT,
        "api_version": {"const": 1},
        "templates": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["identifier", "description", "inputs", "outputs", "env"],
                "additionalProperties": False,
                "properties": {
                    "identifier": TEXT,
                    "description": TEXT,
                    "inputs": {"type": "array", "items": MOUNT},
                    "outputs": {"type": "array", "items": MOUNT},
                    "env": {"type": "array", "items": VARIABLE},
                    "command": {"type": "array", "items": TEXT},
                    "resources": RESOURCES,
                },
            },
        },
    },
}
"""The Task API of Kaapana 0.6 (the contract, section 4)."""


@pytest.mark.parametrize("notebook", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_the_tutorials_descriptions_are_valid(notebook: Path) -> None:
    files = export_notebook(notebook, profile("0.6")).files
    (data,) = (data for name, data in files.items() if name.endswith("/processing-container.json"))
    jsonschema.validate(json.loads(data), TASK_API)


def mask_batch(sample_run: Path, tmp_path: Path, change: object = None) -> Batch:
    """A copy of the smallest series with a mask of it, changed by `change`."""
    import shutil

    smallest = min((sample_run / "batch").iterdir(), key=lambda path: sum(1 for _ in path.rglob("*.dcm")))
    run = tmp_path / "run"
    shutil.copytree(smallest / "get-input-data", run / "batch" / smallest.name / "get-input-data")
    batch = Batch.open(run, output_name="masked")
    mask = sitk.OtsuThreshold(batch[0].image(), 0, 1)
    if callable(change):
        mask = change(mask)
    batch[0].output_dir.mkdir()
    sitk.WriteImage(mask, str(batch[0].output_dir / f"{batch[0].name}.nrrd"))
    return batch


def test_a_good_mask_comes_back_as_its_receiver_sees_it(sample_run: Path, tmp_path: Path) -> None:
    batch = mask_batch(sample_run, tmp_path)
    seen = preview_segmentation(batch[0], "abdomen", input_name="get-input-data")
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(batch[0].output_dir / f"{batch[0].name}.nrrd")))
    assert np.array_equal(seen.array, mask)
    assert list(mask_problems(batch, "abdomen", input_name="get-input-data")) == []


def _moved(mask: sitk.Image) -> sitk.Image:
    mask.SetOrigin([value + 1 for value in mask.GetOrigin()])
    return mask


@pytest.mark.parametrize(
    ("change", "words"),
    [(_moved, "mm off"), (lambda mask: mask * 7, "labels"), (lambda mask: mask * 0, "empty")],
    ids=["moved", "labels", "empty"],
)
def test_a_mask_that_would_be_refused_is_told(sample_run: Path, tmp_path: Path, change: object, words: str) -> None:
    batch = mask_batch(sample_run, tmp_path, change)
    ((_, error),) = mask_problems(batch, "abdomen", input_name="get-input-data")
    assert isinstance(error, BatchError)
    assert words in error.problem
