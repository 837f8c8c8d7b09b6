from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
import SimpleITK as sitk
from dicom_maker import make_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from kaapana_nb.data import writers
from kaapana_nb.data.volume import SeriesVolume
from kaapana_nb.data.writers import has_writer, register_writer, write_result
from kaapana_nb.errors import AlgorithmError

DTYPES = [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64, np.float32, np.float64]
finite = st.floats(-1e6, 1e6, allow_nan=False)


def image_of(array: np.ndarray, *, vector: bool = False) -> sitk.Image:
    image = sitk.GetImageFromArray(array, isVector=vector)
    dimension = image.GetDimension()
    image.SetSpacing([0.1 + 0.7 * axis for axis in range(dimension)])
    image.SetOrigin([-3.3 * axis for axis in range(dimension)])
    if dimension == 3:
        image.SetDirection((0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1))
    return image


def assert_same_image(left: sitk.Image, right: sitk.Image) -> None:
    np.testing.assert_array_equal(sitk.GetArrayFromImage(left), sitk.GetArrayFromImage(right))
    assert left.GetPixelID() == right.GetPixelID()
    assert left.GetNumberOfComponentsPerPixel() == right.GetNumberOfComponentsPerPixel()
    for get in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(left, get)(), getattr(right, get)(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_simpleitk_reads_back_an_equal_image(tmp_path, dtype):
    image = image_of(np.arange(60).reshape(3, 4, 5).astype(dtype))
    (path,) = write_result(image, tmp_path, "1.2.3")
    assert path == tmp_path / "1.2.3.nrrd"
    assert_same_image(sitk.ReadImage(str(path)), image)


@pytest.mark.parametrize(
    "image",
    [
        image_of(np.arange(120, dtype=np.float32).reshape(2, 3, 4, 5), vector=True),
        image_of(np.arange(72, dtype=np.uint8).reshape(2, 3, 4, 3), vector=True),
        image_of(np.arange(12, dtype=np.int16).reshape(3, 4)),
        image_of(np.arange(48, dtype=np.int16).reshape(2, 2, 3, 4)),
        image_of(np.zeros((1, 1, 1), np.uint8)),
    ],
    ids=["vector", "colour", "plane", "time", "voxel"],
)
def test_other_shapes_read_back_equal(tmp_path, image):
    (path,) = write_result(image, tmp_path, "x")
    assert_same_image(sitk.ReadImage(str(path)), image)


@settings(max_examples=40, deadline=None)
@given(
    spacing=st.tuples(*[st.floats(1e-3, 1e3)] * 3),
    origin=st.tuples(finite, finite, finite),
    angles=st.tuples(*[st.floats(-3.2, 3.2)] * 3),
)
def test_any_geometry_reads_back(tmp_path_factory, spacing, origin, angles):
    transform = sitk.Euler3DTransform()
    transform.SetRotation(*angles)
    image = sitk.Image(2, 2, 2, sitk.sitkUInt8)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(transform.GetMatrix())
    (path,) = write_result(image, tmp_path_factory.mktemp("nrrd"), "x")
    back = sitk.ReadImage(str(path))
    assert back.GetOrigin() == origin
    np.testing.assert_allclose(back.GetSpacing(), spacing, rtol=1e-12)
    np.testing.assert_allclose(back.GetDirection(), transform.GetMatrix(), rtol=0, atol=1e-12)


def test_a_volume_is_written_in_real_values(tmp_path):
    array = np.arange(8, dtype=np.uint16).reshape(2, 2, 2)
    (path,) = write_result(SeriesVolume(array=array, intercept=-1024, spacing=(1, 2, 3)), tmp_path, "x")
    image = sitk.ReadImage(str(path))
    assert image.GetPixelID() == sitk.sitkInt16
    assert image.GetSpacing() == (1, 2, 3)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), array.astype(int) - 1024)


def test_the_same_result_gives_the_same_bytes(tmp_path):
    figure = Figure()
    figure.subplots().plot([1, 2])
    for value in (image_of(np.arange(60, dtype=np.int16).reshape(3, 4, 5)), {"b": 1, "a": [2]}, figure):
        first, second = (write_result(value, tmp_path / name, "x")[0] for name in "ab")
        assert first.read_bytes() == second.read_bytes()
    assert b"Matplotlib" not in second.read_bytes()
    assert second.read_bytes().startswith(b"\x89PNG")


def test_json_takes_numpy_and_sorts_keys(tmp_path):
    value = {"b": np.float32(0.5), "a": np.int64(3), "c": [np.bool_(True), None, np.arange(2)], "ü": {"x": (1, 2)}}
    (path,) = write_result(value, tmp_path, "s", annotation=dict[str, Any])
    assert json.loads(path.read_text()) == {"a": 3, "b": 0.5, "c": [True, None, [0, 1]], "ü": {"x": [1, 2]}}
    assert path.read_text().index('"a"') < path.read_text().index('"b"')


def test_json_takes_values_of_a_header(tmp_path):
    dataset = make_dataset(0, np.zeros((2, 2), np.int16))
    value = {"uid": dataset.StudyInstanceUID, "name": dataset.PatientName, "slope": dataset.RescaleSlope}
    (path,) = write_result(value, tmp_path, "s")
    assert json.loads(path.read_text()) == {"uid": dataset.StudyInstanceUID, "name": "Secret^Name", "slope": 1.0}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"a": {"b": [1.0, float("nan")]}}, r"nan at \['a'\]\['b'\]\[1\]"),
        ({"a": np.float64("inf")}, r"inf at \['a'\]"),
        ({1: 2}, "key '1' of type int"),
        ({"a": object()}, r"object at \['a'\]"),
        ({"a": "\ud800"}, "UnicodeEncodeError"),
        (object(), "type object cannot be written"),
        ([{"a": 1}, 3], "type int cannot be written"),
        (sitk.Image(2, 2, 2, sitk.sitkComplexFloat32), "complex"),
    ],
)
def test_what_cannot_be_written_is_named_and_leaves_nothing(tmp_path, value, problem):
    with pytest.raises(AlgorithmError, match=problem):
        write_result(value, tmp_path / "out", "s")
    assert not list(tmp_path.rglob("*.*"))


def test_a_circle_is_no_crash(tmp_path):
    value: dict[str, Any] = {}
    value["self"] = value
    with pytest.raises(AlgorithmError, match="RecursionError"):
        write_result(value, tmp_path, "s")


def test_a_dataset_reads_back(tmp_path):
    dataset = make_dataset(0, np.ones((2, 2), np.int16))
    (path,) = write_result(dataset, tmp_path, "s")
    assert pydicom.dcmread(path) == dataset
    del dataset.file_meta
    with pytest.raises(AlgorithmError, match="cannot be written as a DICOM file"):
        write_result(dataset, tmp_path, "t")
    assert not (tmp_path / "t.dcm").exists()


def test_a_table_reads_back(tmp_path):
    table = pd.DataFrame({"a": [1, 2], "b": ["x", 'y"\n']})
    (path,) = write_result(table, tmp_path, "s")
    assert path.suffix == ".csv"
    pd.testing.assert_frame_equal(pd.read_csv(path), table)
    (path,) = write_result(table.set_index("a"), tmp_path, "s")
    pd.testing.assert_frame_equal(pd.read_csv(path), table)


def test_lists_and_annotated_dicts_give_several_files(tmp_path):
    image = image_of(np.zeros((1, 2, 2), np.uint8))
    assert [path.name for path in write_result([image, {"a": 1}], tmp_path, "s")] == ["s-0.nrrd", "s-1.json"]
    named = write_result({"lung": image, "liver": image}, tmp_path, "s", annotation=dict[str, sitk.Image])
    assert [path.name for path in named] == ["s-liver.nrrd", "s-lung.nrrd"]
    assert write_result(None, tmp_path, "s") == ()
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("key", ["../x", "a/b", "", "a b", "x" * 101, 3])
def test_a_key_that_is_no_file_name_is_refused(tmp_path, key):
    image = image_of(np.zeros((1, 2, 2), np.uint8))
    with pytest.raises(AlgorithmError, match="becomes part of a file name"):
        write_result({key: image}, tmp_path / "out", "s", annotation=dict[str, sitk.Image])
    assert not (tmp_path / "out").exists()


def test_all_files_of_a_result_or_none(tmp_path):
    with pytest.raises(AlgorithmError, match="nan"):
        write_result([{"a": 1}, {"a": float("nan")}], tmp_path, "s")
    assert list(tmp_path.iterdir()) == []


def test_what_an_algorithm_may_declare():
    for annotation in (None, dict, sitk.Image, dict[str, Any], list[sitk.Image], dict[str, sitk.Image], pd.DataFrame):
        assert has_writer(annotation), annotation
    assert not has_writer(int)
    assert not has_writer(list[int])


def test_a_type_of_ones_own(tmp_path, monkeypatch):
    class Mine:
        text = b"hello"

    monkeypatch.setattr(writers, "_WRITERS", dict(writers._WRITERS))
    register_writer(Mine, ".txt", lambda value, file: file.write(value.text))
    (path,) = write_result(Mine(), tmp_path, "s")
    assert (path.name, path.read_bytes()) == ("s.txt", b"hello")
