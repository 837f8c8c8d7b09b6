"""The data layer keeps to the platform's directories and file names, as its own operators write and read them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import SimpleITK as sitk

from kaapana_nb.data.batch import Batch
from kaapana_nb.data.convert import convert_element
from kaapana_nb.data.writers import write_result

pytestmark = pytest.mark.contract


@pytest.fixture
def run(sample_run, tmp_path) -> Path:
    return shutil.copytree(sample_run, tmp_path / "run")


def environ(run: Path, **values: str) -> dict[str, str]:
    return {"WORKFLOW_DIR": str(run), "BATCH_NAME": "batch", "OPERATOR_IN_DIR": "get-input-data", **values}


@pytest.mark.parametrize("leading", ["/", ""])
def test_the_workflow_directory_is_joined_below_the_root(run, leading):
    workflow_dir = leading + str(run).lstrip("/")
    batch = Batch.from_environ(environ(run, WORKFLOW_DIR=workflow_dir, OPERATOR_OUT_DIR="otsus-method"))
    for element in batch:
        assert element.input_dir == run / "batch" / element.series_uid / "get-input-data"
        assert element.output_dir == run / "batch" / element.series_uid / "otsus-method"
    assert batch.output_dir == run / "otsus-method"


def test_converter_and_segmentation_chain_through_operator_directories(run):
    """get-input-data -> dcm-converter -> otsus-method, each reading what the one before wrote."""
    converter = Batch.from_environ(environ(run, OPERATOR_OUT_DIR="dcm-converter"))
    for element in converter:
        assert convert_element(element).name == f"{element.series_uid}.nrrd"
    otsu = Batch.from_environ(environ(run, OPERATOR_IN_DIR="dcm-converter", OPERATOR_OUT_DIR="otsus-method"))
    for before, element in zip(converter, otsu, strict=True):
        mask = sitk.OtsuThreshold(element.image(), 0, 1)
        (path,) = write_result(mask, element.output_dir, element.name)
        assert path == run / "batch" / element.series_uid / "otsus-method" / f"{element.series_uid}.nrrd"
        assert sitk.ReadImage(str(path)).GetSize() == before.image().GetSize()


def test_results_of_the_batch_go_to_the_runs_own_operator_directory(run):
    batch = Batch.from_environ(environ(run, OPERATOR_OUT_DIR="pool-jsons"))
    (path,) = write_result({"series": len(batch)}, batch.output_dir, "pooled")
    assert path == run / "pool-jsons" / "pooled.json"
    assert json.loads(path.read_text()) == {"series": len(batch)}


def test_nothing_but_results_appears_below_the_batch(run):
    """Other operators take every directory of the batch for a series, and every file of an input for DICOM."""
    before = sorted(run.glob("batch/**/*"))
    batch = Batch.open(run)
    batch.index()
    batch.series_table()
    assert sorted(run.glob("batch/**/*")) == before
