from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_maker import series_uid, write_run, write_series

from kaapana_nb.data.batch import Batch
from kaapana_nb.errors import BatchError, ContractError, DicomError


def test_a_run_directory_and_its_batch_directory_open_as_the_same_batch(tmp_path):
    run = write_run(tmp_path / "run")
    batch = Batch.open(run)
    assert [element.name for element in batch] == [series_uid("1"), series_uid("2")]
    assert Batch.open(run / "batch") == batch
    assert (batch.run_dir, batch.batch_dir, batch.output_dir) == (run, run / "batch", run / "output")
    assert batch.input_name == "get-input-data"
    assert len(batch) == 2


def test_elements_are_found_by_number_and_series_uid(tmp_path):
    batch = Batch.open(write_run(tmp_path))
    assert batch[1] is batch[series_uid("2")] is batch[-1]
    assert batch[0].series_uid == series_uid("1")
    with pytest.raises(BatchError, match=r"no series '1\.2'"):
        batch["1.2"]
    with pytest.raises(BatchError, match="no element 2; it has 2"):
        batch[2]


def test_an_element_that_is_not_named_by_its_uid_knows_it_from_the_header(tmp_path):
    write_series(tmp_path / "batch" / "first" / "get-input-data", series="7")
    batch = Batch.open(tmp_path)
    assert batch[0].series_uid == series_uid("7")
    assert batch[series_uid("7")].name == "first"


def test_the_input_is_the_one_that_the_elements_have(tmp_path):
    assert Batch.open(write_run(tmp_path / "a", input_name="initial-input")).input_name == "initial-input"
    assert Batch.open(write_run(tmp_path / "b", input_name="dcm-converter")).input_name == "dcm-converter"
    run = write_run(tmp_path / "c", input_name="x")
    write_run(run, input_name="y")
    with pytest.raises(BatchError, match="directories seen: x, y"):
        Batch.open(run)
    assert Batch.open(run, input_name="y").input_name == "y"


def test_from_environ_takes_the_names_of_the_platform(tmp_path):
    run = write_run(tmp_path)
    environ = {"WORKFLOW_DIR": str(run), "BATCH_NAME": "batch", "OPERATOR_OUT_DIR": "otsu", "RUN_ID": "r-1"}
    batch = Batch.from_environ(environ)
    assert batch.context is not None
    assert batch.context.run_id == "r-1"
    assert (batch.input_name, batch.output_name) == ("get-input-data", "otsu")
    assert batch[0].output_dir == run / "batch" / series_uid("1") / "otsu"
    with pytest.raises(ContractError, match="WORKFLOW_DIR"):
        Batch.from_environ({})
    with pytest.raises(BatchError, match="does not exist"):
        Batch.from_environ(environ | {"BATCH_NAME": "other"})


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\nb"])
def test_a_directory_name_that_leaves_the_element_is_refused(tmp_path, name):
    batch = Batch.open(write_run(tmp_path))
    with pytest.raises(BatchError, match="name of one directory"):
        batch.with_output(name)
    with pytest.raises(BatchError, match="name of one directory"):
        batch.with_input(name)


def test_input_and_output_are_never_the_same_directory(tmp_path):
    batch = Batch.open(write_run(tmp_path))
    assert batch.with_output("mask")[0].output_dir.name == "mask"
    assert batch.with_input("mask")[0].input_dir.name == "mask"
    with pytest.raises(BatchError, match="both 'get-input-data'"):
        batch.with_output("get-input-data")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda path: path / "nowhere", "does not exist"),
        (lambda path: (path / "batch").mkdir() or path, "has no element"),
    ],
)
def test_what_is_no_batch_is_named(tmp_path, make, problem):
    with pytest.raises(BatchError, match=problem) as caught:
        Batch.open(make(tmp_path))
    assert caught.value.remedy


def test_an_element_without_input_or_without_dicom_fails_when_it_is_read(tmp_path):
    run = write_run(tmp_path)
    (run / "batch" / "empty" / "get-input-data").mkdir(parents=True)
    (run / "batch" / "text" / "get-input-data").mkdir(parents=True)
    (run / "batch" / "text" / "get-input-data" / "notes.txt").write_text("hello")
    (run / "batch" / "bare").mkdir()
    batch = Batch.open(run)
    with pytest.raises(BatchError, match="is empty"):
        batch["empty"].image()
    with pytest.raises(BatchError, match="does not exist"):
        batch["bare"].instances()
    with pytest.raises(DicomError, match="no DICOM file among the 1"):
        batch["text"].volume()
    assert len(batch[series_uid("1")].instances()) == 5


def test_image_is_hounsfield_with_the_geometry_of_the_headers(tmp_path):
    cosines = (0.8, 0.6, 0, -0.6, 0.8, 0)
    values = write_series(tmp_path / "batch" / "1.2" / "in", orientation=cosines)
    image = Batch.open(tmp_path)[0].image()
    assert image.GetPixelID() == sitk.sitkInt16
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), values - 1024)
    assert image.GetSpacing() == pytest.approx((0.5, 0.75, 2.0))
    assert image.GetOrigin() == (-10, 20, 30)
    assert image.GetDirection() == pytest.approx((0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1))


def test_volume_keeps_stored_values(tmp_path):
    values = write_series(tmp_path / "batch" / "1.2" / "in")
    volume = Batch.open(tmp_path)[0].volume()
    np.testing.assert_array_equal(volume.array, values)
    assert (volume.slope, volume.intercept) == (1, -1024)


@pytest.mark.parametrize("suffix", [".nrrd", ".nii", ".nii.gz", ".mha"])
def test_an_image_file_of_an_earlier_operator_is_read(tmp_path, suffix):
    source = sitk.GetImageFromArray(np.arange(24, dtype=np.int16).reshape(2, 3, 4))
    source.SetSpacing((1, 2, 3))
    directory = tmp_path / "batch" / "1.2" / "converter"
    directory.mkdir(parents=True)
    sitk.WriteImage(source, str(directory / f"x{suffix}"))
    element = Batch.open(tmp_path)[0]
    assert element.image().GetSpacing() == (1, 2, 3)
    np.testing.assert_array_equal(element.volume().array, sitk.GetArrayFromImage(source))
    sitk.WriteImage(source, str(directory / "y.mha"))
    with pytest.raises(BatchError, match="2 image files"):
        element.image()


def test_a_damaged_image_file_is_one_clear_error(tmp_path):
    directory = tmp_path / "batch" / "1.2" / "converter"
    directory.mkdir(parents=True)
    (directory / "x.nrrd").write_bytes(b"NRRD0004\nnonsense")
    with pytest.raises(BatchError, match=r"x\.nrrd cannot be read"):
        Batch.open(tmp_path)[0].image()


def test_batch_and_element_survive_pickling(tmp_path):
    environ = {"WORKFLOW_DIR": str(write_run(tmp_path)), "BATCH_NAME": "batch"}
    batch = Batch.from_environ(environ)
    assert pickle.loads(pickle.dumps(batch)) == batch
    assert pickle.loads(pickle.dumps(batch[0])) == batch[0]


def test_the_table_escapes_names_and_shows_no_patient(tmp_path):
    write_series(tmp_path / "batch" / "<script>alert(1)" / "in")
    text = Batch.open(tmp_path)._repr_html_()
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "SECRET" not in text
    assert "Secret" not in text


def test_opening_a_batch_imports_no_image_library(tmp_path):
    run = write_run(tmp_path)
    code = (
        "import sys; from kaapana_nb import Batch; batch = Batch.open(sys.argv[1]); repr(batch); "
        "print([name for name in ('SimpleITK', 'pydicom', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
