"""Parity: equal runs are equal, and every kind of difference is found, told where, and not quoted."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from kaapana_nb.emulator.sample_headers import SERIES
from kaapana_nb.errors import ParityError, UsageError
from kaapana_nb.ship.compare import BATCH_LEVEL, ParityReport, compare_results
from kaapana_nb.ship.compare_files import Tolerance, array_difference

ELEMENT = SERIES[0].series_uid


class Pair:
    """Two run directories that hold the same results until a test changes one."""

    def __init__(self, directory: Path) -> None:
        self.left, self.right = directory / "left", directory / "right"

    def both(self, name: str, data: bytes, *, element: str = ELEMENT) -> tuple[Path, Path]:
        return self.put(self.left, name, data, element), self.put(self.right, name, data, element)

    def put(self, run: Path, name: str, data: bytes, element: str = ELEMENT) -> Path:
        path = run / "batch" / element / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def images(self, name: str, left: sitk.Image, right: sitk.Image) -> None:
        for run, image in ((self.left, left), (self.right, right)):
            path = self.put(run, name, b"")
            sitk.WriteImage(image, path)

    def compare(self, **options: Any) -> ParityReport:
        return compare_results(self.left, self.right, batch_name="batch", output_name="out", **options)

    def difference(self, **options: Any) -> str:
        (row,) = self.compare(**options).elements
        assert row.equal == (row.difference == "")
        return row.difference


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def volume(array: Any, spacing: tuple[float, float, float] = (0.5, 0.5, 2.0)) -> sitk.Image:
    image = sitk.GetImageFromArray(np.asarray(array))
    image.SetSpacing(spacing)
    return image


def dicom(pair: Pair, sample_run: Path, change: Any, name: str = "seg.dcm") -> None:
    """The same instance on both sides, the right one changed."""
    source = sorted((sample_run / "batch" / ELEMENT / "get-input-data").iterdir())[0]
    left, right = pydicom.dcmread(source), pydicom.dcmread(source)
    for dataset, run in ((left, pair.left), (right, pair.right)):
        if dataset is right:
            change(dataset)
        target = pair.put(run, name, b"")
        dataset.save_as(target)
        shutil.copytree(source.parent, run / "batch" / ELEMENT / "get-input-data", dirs_exist_ok=True)


def test_equal_runs(pair: Pair) -> None:
    pair.both("mask.nrrd", b"the same bytes", element="2.25.1")
    pair.both("deep/er/notes.bin", b"\x00\x01", element="2.25.2")
    report = pair.compare()
    assert report.equal
    assert [(row.element, row.output) for row in report.elements] == [
        ("2.25.1", "mask.nrrd"),
        ("2.25.2", "deep/er/notes.bin"),
    ]
    assert report.to_json()["elements"][0] == {
        "element": "2.25.1",
        "output": "mask.nrrd",
        "equal": True,
        "difference": "",
    }
    assert report.table().endswith("2 of 2 outputs are equal.")


def test_nothing_to_compare_proves_nothing(pair: Pair) -> None:
    pair.left.mkdir()
    (pair.right / "batch" / ELEMENT / "get-input-data").mkdir(parents=True)
    with pytest.raises(ParityError, match="nothing to compare"):
        pair.compare()


def test_missing_and_extra_files(pair: Pair) -> None:
    pair.put(pair.left, "a.json", b"1")
    pair.put(pair.right, "b.json", b"1")
    pair.put(pair.right, "c.json", b"1", element="2.25.77")
    rows = {row.output: row.difference for row in pair.compare().elements}
    assert rows == {
        "a.json": "only the left side has it",
        "b.json": "only the right side has it",
        "c.json": "only the right side has it",
    }


def test_results_of_the_whole_batch_without_reports(pair: Pair) -> None:
    for run, text in ((pair.left, "1"), (pair.right, "2")):
        for name in ("run-report.json", "otsus_method.ipynb", "otsus_method.html", "pooled.json", "deep/run.txt"):
            path = run / "out" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    pair.both("overview.html", b"of an element: this one counts")
    report = pair.compare()
    assert {(row.element, row.output, row.equal) for row in report.elements} == {
        (BATCH_LEVEL, "deep/run.txt", False),
        (BATCH_LEVEL, "pooled.json", False),
        (ELEMENT, "overview.html", True),
    }


def test_links_are_not_followed(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("the same on both sides")
    (tmp_path / "directory").mkdir()
    for name, target in (("file", "secret"), ("directory", "directory")):
        for run in (pair.left, pair.right):
            link = run / "batch" / ELEMENT / "out" / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(tmp_path / target)
    rows = {row.output: row.difference for row in pair.compare().elements}
    assert rows == {"file": "it is no regular file", "directory": "it is no regular file"}


def test_a_pipe_does_not_hang(pair: Pair) -> None:
    pair.both("x", b"")[1].unlink()
    os.mkfifo(pair.right / "batch" / ELEMENT / "out" / "x")
    assert pair.difference() == "it is no regular file"


@pytest.mark.parametrize("suffix", [".nrrd", ".nii", ".nii.gz", ".mha"])
def test_image_voxels(pair: Pair, suffix: str) -> None:
    left = np.zeros((3, 4, 5), np.int16)
    right = left.copy()
    right[1, 2, 3], right[2, 0, 0] = 7, -2
    pair.images(f"mask{suffix}", volume(left), volume(right))
    assert pair.difference() == "2 of 60 voxels differ, by at most 7; first at index (1, 2, 3): 0 and 7"


def test_image_with_other_compression_is_equal(pair: Pair) -> None:
    image = volume(np.arange(60, dtype=np.float32).reshape(3, 4, 5))
    left, right = pair.both("mask.nrrd", b"")
    sitk.WriteImage(image, left, useCompression=True)
    sitk.WriteImage(image, right, useCompression=False)
    assert left.read_bytes() != right.read_bytes()
    assert pair.difference() == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda image: image.SetSpacing((0.5, 0.5, 2.0000001)), "spacing"),
        (lambda image: image.SetOrigin((0, 0, 1)), "origin"),
        (lambda image: image.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, 1)), "direction"),
    ],
)
def test_image_geometry(pair: Pair, change: Any, said: str) -> None:
    left, right = volume(np.zeros((2, 2, 2), np.uint8)), volume(np.zeros((2, 2, 2), np.uint8))
    change(right)
    pair.images("mask.nrrd", left, right)
    assert pair.difference(tolerances={".nrrd": Tolerance(absolute=9)}).startswith(said)


def test_image_type_and_size(pair: Pair) -> None:
    pair.images("a.nrrd", volume(np.zeros((2, 2, 2), np.uint8)), volume(np.zeros((2, 2, 2), np.int16)))
    pair.images("b.nrrd", volume(np.zeros((2, 2, 2), np.uint8)), volume(np.zeros((2, 2, 3), np.uint8)))
    pair.images("c.nrrd", volume(np.zeros((2, 2, 2), np.uint8)), sitk.Image([2, 2, 2], sitk.sitkVectorUInt8, 3))
    said = {row.output: row.difference for row in pair.compare().elements}
    assert said["a.nrrd"] == "pixel type: 8-bit unsigned integer and 16-bit signed integer"
    assert said["b.nrrd"] == "size: (2, 2, 2) and (3, 2, 2)"
    assert said["c.nrrd"].startswith("pixel type")


def test_tolerance_of_one_suffix(pair: Pair) -> None:
    left = np.full((2, 2, 2), 100, np.float32)
    pair.images("map.nrrd", volume(left), volume(left + np.float32(0.5)))
    assert pair.difference(tolerances={".mha": Tolerance(absolute=1)}) != ""
    assert pair.difference(tolerances={".nrrd": Tolerance(absolute=0.4)}) != ""
    assert pair.difference(tolerances={".nrrd": Tolerance(absolute=0.5)}) == ""
    assert pair.difference(tolerances={".NRRD": Tolerance(relative=0.01)}) == ""
    assert pair.difference(tolerances={".nrrd": Tolerance(relative=0.001)}) != ""


@pytest.mark.parametrize(
    ("suffix", "tolerance"),
    [("nrrd", Tolerance()), (".nrrd", Tolerance(absolute=-1)), (".nrrd", Tolerance(relative=float("nan")))],
)
def test_a_tolerance_that_is_none(pair: Pair, suffix: str, tolerance: Tolerance) -> None:
    pair.both("a", b"")
    with pytest.raises(UsageError, match="tolerance"):
        pair.compare(tolerances={suffix: tolerance})


def test_nan_is_nan_and_nothing_else() -> None:
    nan, far = np.array([1.0, np.nan, 3.0]), Tolerance(absolute=1e300)
    assert array_difference(nan, nan.copy(), far, "voxels") == ""
    assert array_difference(nan, np.array([1.0, 2.0, 3.0]), far, "voxels") == (
        "1 of 3 voxels differ, by at most inf; first at index (1,): nan and 2.0"
    )
    assert array_difference(np.array([np.inf]), np.array([1.0]), Tolerance(relative=1), "voxels") != ""


def test_long_whole_numbers_are_not_rounded() -> None:
    left = np.array([2**53], np.int64)
    assert array_difference(left, left + 1, Tolerance(), "voxels") != ""


@given(
    values=st.lists(st.integers(-1000, 1000), min_size=1, max_size=30),
    changes=st.dictionaries(st.integers(0, 29), st.integers(1, 50), max_size=5),
    allowed=st.integers(0, 50),
)
def test_every_change_beyond_the_tolerance_is_counted(values: list[int], changes: dict[int, int], allowed: int) -> None:
    left = np.array(values, np.int32)
    right = left.copy()
    for index, change in changes.items():
        right[index % len(values)] += change
    beyond = np.flatnonzero(np.abs(right - left) > allowed)
    said = array_difference(left, right, Tolerance(absolute=allowed), "voxels")
    if beyond.size:
        assert said.startswith(f"{beyond.size} of {len(values)} voxels differ, by at most {np.max(right - left)};")
        assert f"index ({beyond[0]},)" in said
    else:
        assert said == ""


def test_the_order_of_json_keys_does_not_count(pair: Pair) -> None:
    left, _ = pair.both("a.json", b'{"a": 1, "b": NaN}')
    left.write_bytes(b'{"b": NaN,\n "a": 1}')
    assert pair.difference() == ""


@pytest.mark.parametrize(
    ("left", "right", "said"),
    [
        ({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}, "$.a[1].b: 2 and 3"),
        ({"a": 1}, {"a": 1.0}, "$.a: a value of type int and one of type float"),
        ({"a": 1}, {"a": True}, "$.a: a value of type int and one of type bool"),
        ({"a": None}, {"a": False}, "$.a: a value of type NoneType and one of type bool"),
        ({"a": 0.5}, {"a": float("nan")}, "$.a: 0.5 and nan"),
        ({"a": [1]}, {"a": [1, 2]}, "$.a: 1 and 2 items"),
        ({"a": 1}, {"a": 1, "volume_ml": 2}, "$.volume_ml: only the right side has it"),
        ({"a": "Erika Muster"}, {"a": "Max Muster"}, "$.a: texts of 12 and 10 characters differ"),
        ({"Muster, Erika": 1}, {"Muster, Erika": 2}, "$.<key of 13 characters>: 1 and 2"),
        ({"id": 20458817}, {"id": 20458819}, "$.id: whole numbers that lie 2 apart"),
        ([2**53], [2**53 + 1], "$[0]: whole numbers that lie 1 apart"),
    ],
)
def test_json(pair: Pair, left: Any, right: Any, said: str) -> None:
    pair.put(pair.left, "a.json", json.dumps(left).encode())
    pair.put(pair.right, "a.json", json.dumps(right).encode())
    assert pair.difference() == said


def test_json_numbers_within_the_tolerance(pair: Pair) -> None:
    pair.put(pair.left, "a.json", b'{"dice": 0.9000001, "voxels": 1000000}')
    pair.put(pair.right, "a.json", b'{"dice": 0.9, "voxels": 1000001}')
    assert pair.difference(tolerances={".json": Tolerance(relative=1e-5)}) == ""
    assert pair.difference(tolerances={".json": Tolerance(relative=1e-9)}) == "$.dice: 0.9000001 and 0.9"


@pytest.mark.parametrize("data", [b"{", b"[" * 100_000, b"\xff\xfe\x00"])
@pytest.mark.parametrize("name", ["a.json", "a.nrrd", "a.dcm", "a.csv", "a.png", "a.nii.gz"])
def test_damaged_files_are_a_difference(pair: Pair, name: str, data: bytes) -> None:
    pair.put(pair.left, name, data)
    pair.put(pair.right, name, data + b"?")
    assert pair.difference() != ""


@pytest.mark.parametrize(
    ("left", "right", "said"),
    [
        ("a,b\n1,2\n", "a,b\n1,3\n", "row 2, column 2: texts of 1 and 1 characters differ"),
        ("a,b\n1,2\n", "a,b\n1\n", "row 2: 2 and 1 cells"),
        ("a\n1\n2\n", "a\n1\n", "3 and 2 rows"),
        ('a\n"x\ny"\n', 'a\n"x\nz"\n', "row 2, column 1: texts of 3 and 3 characters differ"),
        ("a\n1.0\n", "a\n1\n", "row 2, column 1: texts of 3 and 1 characters differ"),
        ('a,b\n"1",2\n', "a,b\r\n1,2\r\n", ""),
    ],
)
def test_csv(pair: Pair, left: str, right: str, said: str) -> None:
    pair.put(pair.left, "a.csv", left.encode())
    pair.put(pair.right, "a.csv", right.encode())
    assert pair.difference() == said


def test_csv_numbers_within_the_tolerance(pair: Pair) -> None:
    pair.put(pair.left, "a.csv", b"name,dice\nlung,0.90\n")
    pair.put(pair.right, "a.csv", b"name,dice\nlung,0.91\n")
    assert pair.difference(tolerances={".csv": Tolerance(absolute=0.02)}) == ""
    pair.put(pair.right, "a.csv", b"name,dice\nliver,0.91\n")
    assert pair.difference(tolerances={".csv": Tolerance(absolute=0.02)}).startswith("row 2, column 1")


def test_png_by_pixels(pair: Pair) -> None:
    image = sitk.GetImageFromArray(np.arange(12, dtype=np.uint8).reshape(3, 4))
    left, right = pair.both("a.png", b"")
    sitk.WriteImage(image, left, useCompression=True, compressionLevel=9)
    sitk.WriteImage(image, right, useCompression=False)
    assert left.read_bytes() != right.read_bytes()
    assert pair.difference() == ""
    image[2, 1] = 99
    sitk.WriteImage(image, right)
    assert pair.difference() == "1 of 12 pixel values differ, by at most 93; first at index (1, 2): 6 and 99"
    sitk.WriteImage(image[:2, :], right)
    assert pair.difference() == "size: (3, 4) and (3, 2)"


def test_other_files_by_bytes(pair: Pair) -> None:
    pair.put(pair.left, "model.bin", b"12")
    pair.put(pair.right, "model.bin", b"123")
    assert pair.difference() == "the bytes differ (2 and 3 bytes)"


def new_object(dataset: Dataset) -> None:
    """What a second run changes in an object that it makes."""
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "2.25.42"
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = "20300101", "000000"
    dataset.ContentDate, dataset.ContentTime = "20300101", "000000"


def test_a_new_uid_and_new_times_do_not_count(pair: Pair, sample_run: Path) -> None:
    def first(dataset: Dataset) -> None:
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "2.25.41"
        dataset.SeriesInstanceUID = "2.25.51"

    dicom(pair, sample_run, new_object)
    left = pair.left / "batch" / ELEMENT / "out" / "seg.dcm"
    dataset = pydicom.dcmread(left)
    first(dataset)
    dataset.save_as(left)
    right = pair.right / "batch" / ELEMENT / "out" / "seg.dcm"
    dataset = pydicom.dcmread(right)
    dataset.SeriesInstanceUID = "2.25.52"
    dataset.save_as(right)
    assert pair.difference() == ""


def test_a_uid_of_the_batch_counts(pair: Pair, sample_run: Path) -> None:
    dicom(pair, sample_run, new_object)  # the left side kept the UID of its source
    assert pair.difference().startswith("MediaStorageSOPInstanceUID: texts of")
    shutil.rmtree(pair.right)
    dicom(pair, sample_run, lambda dataset: setattr(dataset, "SeriesInstanceUID", "2.25.52"))
    assert pair.difference().startswith("SeriesInstanceUID: texts of")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda ds: setattr(ds, "PatientName", "Beispiel^Erika"), "PatientName: texts of 33 and 14 characters differ"),
        (lambda ds: delattr(ds, "PatientName"), "PatientName: only the left side has it"),
        (lambda ds: setattr(ds, "PatientWeight", "71"), "PatientWeight: only the right side has it"),
        (lambda ds: setattr(ds, "StudyInstanceUID", "2.25.1"), "StudyInstanceUID: texts of"),
        (lambda ds: setattr(ds, "PixelSpacing", ["0.5", "0.5703125"]), "PixelSpacing: value 0: 0.5703125 and 0.5"),
        (lambda ds: setattr(ds, "WindowCenter", "40"), "WindowCenter: 2 and 1 values"),
        (lambda ds: setattr(ds, "KVP", None), "KVP: 1 and 0 values"),
        (
            lambda ds: setattr(ds.RequestAttributesSequence[0], "RequestedProcedureID", "RP1"),
            "RequestAttributesSequence[0].RequestedProcedureID: texts of 8 and 3 characters differ",
        ),
        (lambda ds: setattr(ds, "RequestAttributesSequence", []), "RequestAttributesSequence: 1 and 0 items"),
        (lambda ds: setattr(ds[0x0029, 0x1010], "value", b"12"), "(0029,1010): the bytes differ (2048 and 2 bytes)"),
        (
            lambda ds: setattr(ds.file_meta, "ImplementationVersionName", "OTHER"),
            "ImplementationVersionName: texts of 15 and 5 characters differ",
        ),
    ],
)
def test_dicom_attributes(pair: Pair, sample_run: Path, change: Any, said: str) -> None:
    dicom(pair, sample_run, change)
    assert pair.difference().startswith(said)


def test_dicom_numbers_written_otherwise_are_equal(pair: Pair, sample_run: Path) -> None:
    dicom(pair, sample_run, lambda dataset: setattr(dataset, "KVP", "120.0"))
    assert pair.difference() == ""


def test_dicom_pixels(pair: Pair, sample_run: Path) -> None:
    def change(dataset: Dataset) -> None:
        pixels = dataset.pixel_array.copy()
        pixels[3, 4] += 5
        dataset.PixelData = pixels.tobytes()

    dicom(pair, sample_run, change)
    said = pair.difference()
    assert said.startswith("PixelData: 1 of 262144 pixel values differ, by at most 5; first at index (3, 4):")
    assert pair.difference(tolerances={".dcm": Tolerance(absolute=5)}) == ""


def test_dicom_pixels_that_cannot_be_decoded(pair: Pair, sample_run: Path) -> None:
    dicom(pair, sample_run, lambda dataset: setattr(dataset, "PixelData", b"short."))
    assert pair.difference().startswith("the bytes differ, and the contents cannot be compared")


def test_files_named_after_their_new_uid_are_paired_by_number(pair: Pair, sample_run: Path) -> None:
    source = pydicom.dcmread(sorted((sample_run / "batch" / ELEMENT / "get-input-data").iterdir())[0])
    for run, uid in ((pair.left, "2.25.1"), (pair.right, "2.25.2")):
        for number in (1, 2):
            source.SOPInstanceUID = source.file_meta.MediaStorageSOPInstanceUID = f"{uid}{number}"
            source.InstanceNumber = number
            source.ImageComments = f"of number {number}"
            source.save_as(pair.put(run, f"{uid}{number}.dcm", b""))
    report = pair.compare()
    assert [row.output for row in report.elements] == ["2.25.11.dcm", "2.25.12.dcm"]
    assert report.equal
    source.InstanceNumber = 1  # two files of one number: nothing tells them apart any more
    source.save_as(pair.right / "batch" / ELEMENT / "out" / f"{source.SOPInstanceUID}.dcm")
    assert [row.equal for row in pair.compare().elements] == [False] * 4


def test_no_text_of_a_patient_is_quoted(pair: Pair, sample_run: Path) -> None:
    study = SERIES[0].study

    def change(dataset: Dataset) -> None:
        for keyword in ("PatientName", "PatientID", "AccessionNumber", "InstitutionName", "PatientBirthDate"):
            setattr(dataset, keyword, "19000101")

    dicom(pair, sample_run, change)
    for number, value in enumerate((study.patient_name, study.patient_id, study.birth_date)):
        pair.put(pair.left, f"{number}.json", json.dumps({value: value}).encode())
        pair.put(pair.right, f"{number}.json", json.dumps({value: value + "x"}).encode())
        pair.put(pair.left, f"{number}.csv", f"{value}\n".encode())
        pair.put(pair.right, f"{number}.csv", f"{value}x\n".encode())
    report = pair.compare()
    text = report.table() + json.dumps(report.to_json(), ensure_ascii=False)
    assert len(report.differences) == 7
    for value in (study.patient_name, study.patient_id, study.birth_date, study.accession_number):
        assert value not in text


def test_the_table_says_where(pair: Pair) -> None:
    pair.both("same.txt", b"1")
    pair.put(pair.left, "other\n.txt", b"1")
    pair.put(pair.right, "other\n.txt", b"12")
    lines = pair.compare().table().splitlines()
    assert [line.split()[0] for line in lines] == ["element", "-" * len(ELEMENT), ELEMENT, ELEMENT, "1"]
    assert lines[2].endswith("NO     the bytes differ (1 and 2 bytes)")
    assert lines[-1] == "1 of 2 outputs are equal."
