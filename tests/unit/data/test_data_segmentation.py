from __future__ import annotations

import random
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
import pytest
from dicom_maker import write_series

from kaapana_nb.data.batch import Batch
from kaapana_nb.data.reader import read_headers
from kaapana_nb.data.segmentation import Segment, anatomy_code, write_segmentation
from kaapana_nb.data.segmentation_reader import read_segmentation
from kaapana_nb.data.series import SeriesSource, open_series
from kaapana_nb.data.volume import SeriesVolume
from kaapana_nb.errors import BatchError, DicomError

pytest.importorskip("highdicom")
SEGMENTS = (Segment(number=1, label="liver"), Segment(number=4, label="left lung"))


@pytest.fixture
def source(tmp_path) -> SeriesSource:
    write_series(tmp_path / "in", slices=6, rows=12, columns=16)
    return open_series(read_headers((tmp_path / "in").iterdir()))


def mask_of(source: SeriesSource) -> SeriesVolume:
    """Two labels, with an empty slice at both ends and one in the middle."""
    labels = np.zeros(source.shape, np.uint8)
    middle = len(labels) // 2
    labels[1:-1, 2:6, 3:9] = 1
    labels[1:-1, 7:9, 1:4] = 4
    labels[middle] = 0
    stack = source.stack
    return SeriesVolume(array=labels, spacing=stack.spacing_mm, origin=stack.origin, direction=stack.direction)


@pytest.mark.parametrize("encoding", ["BINARY", "LABELMAP"])
def test_a_mask_of_every_real_series_comes_back_equal(sample_run, tmp_path, encoding):
    for element in Batch.open(sample_run):
        source = element.source()
        mask = mask_of(source)
        path = tmp_path / "seg.dcm"
        write_segmentation(mask, source, SEGMENTS, path, description="test", encoding=encoding)
        back, segments = read_segmentation(path, like=source)
        # numbered from 1 in the file, as the standard demands
        np.testing.assert_array_equal(back.array, np.where(mask.array == 4, 2, mask.array))
        assert (back.spacing, back.origin, back.direction) == (mask.spacing, mask.origin, mask.direction)
        assert [(segment.number, segment.label) for segment in segments] == [(1, "liver"), (2, "left lung")]
        assert segments[0].code == ("10200004", "Liver")


def test_without_the_series_the_mask_has_the_slices_of_the_file(source, tmp_path):
    mask = mask_of(source)
    write_segmentation(mask, source, SEGMENTS, tmp_path / "seg.dcm", description="test")
    back, _ = read_segmentation(tmp_path / "seg.dcm")
    np.testing.assert_array_equal(back.array, np.where(mask.array == 4, 2, mask.array)[1:5])
    assert back.spacing == pytest.approx(mask.spacing)
    assert back.origin == pytest.approx((-10, 20, 32))


def test_the_header_is_the_series_and_the_platforms(source, tmp_path):
    write_segmentation(mask_of(source), source, SEGMENTS, tmp_path / "seg.dcm", description="Otsu's method")
    dataset = pydicom.dcmread(tmp_path / "seg.dcm")
    original = pydicom.dcmread(source.frames[0].header.path)
    for keyword in ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert dataset.get(keyword) == original.get(keyword)
    assert (dataset.Modality, dataset.SeriesNumber, dataset.SeriesDescription) == ("SEG", 300, "Otsu's method")
    code = dataset.SegmentSequence[1].SegmentedPropertyTypeCodeSequence[0]
    assert (code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning) == ("39607008", "SCT", "Lung")
    again = write_segmentation(mask_of(source), source, SEGMENTS, tmp_path / "b.dcm", description="Otsu's method")
    assert (again.SOPInstanceUID, again.SeriesInstanceUID) == (dataset.SOPInstanceUID, dataset.SeriesInstanceUID)
    other = write_segmentation(mask_of(source), source, SEGMENTS, tmp_path / "c.dcm", description="other")
    assert other.SOPInstanceUID != dataset.SOPInstanceUID


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy is not installed")
def test_dciodvfy_finds_no_error(sample_run, tmp_path):
    for element in Batch.open(sample_run):
        source = element.source()
        write_segmentation(mask_of(source), source, SEGMENTS, tmp_path / "seg.dcm", description="test")
        done = subprocess.run(["dciodvfy", tmp_path / "seg.dcm"], capture_output=True, text=True, check=False)
        assert [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")] == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda mask: replace(mask, array=mask.array[1:]), r"its shape is \(5, 12, 16\), the series' is \(6, 12, 16\)"),
        (lambda mask: replace(mask, origin=(0.0, 20.0, 30.0)), "a corner lies 10 mm off"),
        (lambda mask: replace(mask, spacing=(0.5, 0.75, 2.5)), "a corner lies 2.5 mm off"),
        (lambda mask: replace(mask, array=mask.array + np.uint8(1)), r"has the labels \[2, 5\]"),
        (lambda mask: replace(mask, array=mask.array * np.float32(0.5)), r"has the labels \[0\.5, 2"),
        (lambda mask: replace(mask, array=mask.array.astype(np.int16) - 300), "has the labels"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(source, tmp_path, change, problem):
    with pytest.raises(BatchError, match=problem) as caught:
        write_segmentation(change(mask_of(source)), source, SEGMENTS, tmp_path / "seg.dcm", description="test")
    assert caught.value.remedy
    assert not (tmp_path / "seg.dcm").exists()


@pytest.mark.parametrize("numbers", [[], [1, 1], [0], [256]])
def test_impossible_segment_numbers_are_refused(source, tmp_path, numbers):
    segments = [Segment(number=number, label="x") for number in numbers]
    with pytest.raises(BatchError, match="different ones from 1 to 255"):
        write_segmentation(mask_of(source), source, segments, tmp_path / "seg.dcm", description="test")


def test_a_segmentation_of_another_series_is_refused(source, tmp_path):
    write_segmentation(mask_of(source), source, SEGMENTS, tmp_path / "seg.dcm", description="test")
    write_series(tmp_path / "other", slices=6, rows=12, columns=16, origin=(0, 0, 0))
    with pytest.raises(DicomError, match="does not lie on the slices"):
        read_segmentation(tmp_path / "seg.dcm", like=open_series(read_headers((tmp_path / "other").iterdir())))


def test_segments_that_overlap_are_refused(source, tmp_path):
    path = tmp_path / "seg.dcm"
    write_segmentation(mask_of(source), source, SEGMENTS, path, description="test")
    dataset = pydicom.dcmread(path)
    dataset.PixelData = b"\xff" * len(dataset.PixelData)
    dataset.save_as(path)
    with pytest.raises(DicomError, match="overlap"):
        read_segmentation(path)


def test_what_is_no_segmentation_is_named(source, tmp_path):
    with pytest.raises(DicomError, match="is no segmentation"):
        read_segmentation(source.frames[0].header.path)
    (tmp_path / "x.dcm").write_bytes(b"hello")
    with pytest.raises(DicomError, match="no DICOM file"):
        read_segmentation(tmp_path / "x.dcm")


def test_a_real_segmentation_that_contradicts_itself_is_refused():
    path = Path(pydicom.data.__file__).parent / "test_files" / "liver_1frame.dcm"
    with pytest.raises(DicomError, match="describes 3 frames; NumberOfFrames is 1"):
        read_segmentation(path)


def test_one_frame_is_enough(source, tmp_path):
    mask = mask_of(source)
    mask.array[2:] = 0
    mask.array[mask.array == 4] = 0
    write_segmentation(mask, source, SEGMENTS[:1], tmp_path / "seg.dcm", description="test")
    back, _ = read_segmentation(tmp_path / "seg.dcm", like=source)
    np.testing.assert_array_equal(back.array, mask.array)


def test_damaged_segmentations_are_one_clear_error(source, tmp_path):
    path = tmp_path / "seg.dcm"
    write_segmentation(mask_of(source), source, SEGMENTS, path, description="test")
    whole = path.read_bytes()
    chance = random.Random(7)
    for _ in range(150):
        data = bytearray(whole)
        if chance.random() < 0.5:
            del data[chance.randrange(len(data)) :]
        else:
            for _ in range(5):
                data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data)
        try:
            read_segmentation(path, like=source)
        except DicomError as error:
            assert error.remedy


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("liver", "Liver"),
        ("left@lung", "Lung"),
        ("Right Lung", "Lung"),
        ("gross tumor volume 17", "Tissue"),
        ("../../x", "Tissue"),
        ("", "Tissue"),
    ],
)
def test_labels_are_coded(label, expected):
    assert anatomy_code(label)[1] == expected
