"""Volumes equal SimpleITK's and pydicom's on real files; what makes no volume is refused with its remedy."""

from __future__ import annotations

import warnings
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pydicom.data
import pytest
import SimpleITK as sitk
from dicom_maker import UID_ROOT, make_dataset, stored_values, write_series
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from kaapana_nb.data.batch import Batch
from kaapana_nb.data.frames import frames_of
from kaapana_nb.data.header import InstanceHeader
from kaapana_nb.data.progress import CancelledError, Job
from kaapana_nb.data.reader import read_header, read_headers
from kaapana_nb.data.series import open_series, read_series
from kaapana_nb.data.verdicts import check_series
from kaapana_nb.errors import DicomError, KaapanaNbError

REAL = sorted(path for path in (Path(pydicom.data.__file__).parent / "test_files").rglob("*") if path.is_file())
ITK_DIFFERS = {
    "SC_rgb_jpeg.dcm": "the same, but ITK takes six seconds",
    "examples_palette.dcm": "ITK looks the colours up; the indices are kept here",
    "SC_rgb_rle_16bit.dcm": "GDCM mixes up the bytes of the samples; pydicom agrees with us",
    "SC_rgb_rle_16bit_2frame.dcm": "the same",
    "SC_rgb_rle_32bit.dcm": "the same",
    "SC_rgb_rle_32bit_2frame.dcm": "the same",
}


def volumes():
    for path in REAL:
        header = read_header(path)
        if isinstance(header, InstanceHeader):
            try:
                yield path, read_series([header])
            except KaapanaNbError:
                continue


def test_pixels_equal_pydicoms_on_every_real_file():
    compared = 0
    for path, volume in volumes():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                expected = pydicom.dcmread(path, force=True).pixel_array
        except Exception:
            continue
        np.testing.assert_array_equal(volume.array, expected.reshape(volume.shape), err_msg=path.name)
        compared += 1
    assert compared > 50


def test_images_equal_simpleitks_on_every_real_file():
    compared = 0
    for path, volume in volumes():
        if path.name in ITK_DIFFERS or path.parent.name != "test_files":
            continue
        try:
            expected = sitk.ReadImage(str(path))
        except RuntimeError:
            continue
        image = volume.to_image()
        pixels = sitk.GetArrayFromImage(expected)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), pixels.reshape(volume.shape), err_msg=path.name)
        if expected.GetDimension() == 3:
            np.testing.assert_allclose(image.GetOrigin(), expected.GetOrigin(), atol=1e-5, err_msg=path.name)
            np.testing.assert_allclose(image.GetDirection(), expected.GetDirection(), atol=1e-5, err_msg=path.name)
            # the third is SliceThickness here and SpacingBetweenSlices or 1 in ITK: one slice has no distance
            np.testing.assert_allclose(image.GetSpacing()[:2], expected.GetSpacing()[:2], err_msg=path.name)
        compared += 1
    assert compared > 40


def test_every_real_series_equals_simpleitks(sample_run):
    for element in Batch.open(sample_run):
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(element.input_dir)))
        expected = reader.Execute()
        image = element.image()
        np.testing.assert_array_equal(sitk.GetArrayViewFromImage(image), sitk.GetArrayViewFromImage(expected))
        assert image.GetOrigin() == expected.GetOrigin()
        np.testing.assert_allclose(image.GetSpacing(), expected.GetSpacing(), atol=1e-5)
        np.testing.assert_allclose(image.GetDirection(), expected.GetDirection(), atol=1e-6)


def recode(syntax, encode=None):
    """An edit that stores the pixels in another transfer syntax."""

    def edit(dataset, _number):
        pixels = np.frombuffer(dataset.PixelData, "<i2").reshape(dataset.Rows, dataset.Columns)
        dataset.file_meta.TransferSyntaxUID = syntax
        if encode is not None:
            dataset.PixelData = encapsulate([encode(np.ascontiguousarray(pixels))])
            dataset["PixelData"].VR = "OB"
        elif syntax is ExplicitVRBigEndian:
            dataset.PixelData = pixels.astype(">i2").tobytes()

    return edit


def rle(pixels: np.ndarray) -> bytes:
    from pydicom.pixels.encoders import RLELosslessEncoder

    return RLELosslessEncoder.encode(
        pixels, rows=pixels.shape[0], columns=pixels.shape[1], samples_per_pixel=1, bits_allocated=16, bits_stored=16,
        pixel_representation=1, number_of_frames=1, photometric_interpretation="MONOCHROME2",
    )  # fmt: skip


ENCODINGS = {
    "implicit": recode(ImplicitVRLittleEndian),
    "big endian": recode(ExplicitVRBigEndian),
    "deflated": recode(DeflatedExplicitVRLittleEndian),
    "RLE": recode(RLELossless, rle),
    "JPEG-LS": recode(JPEGLSLossless, lambda pixels: imagecodecs.jpegls_encode(pixels.view(np.uint16))),
    "JPEG lossless": recode(JPEGLosslessSV1, lambda p: imagecodecs.ljpeg_encode(p.view(np.uint16), bitspersample=16)),
    "JPEG 2000": recode(
        JPEG2000Lossless, lambda pixels: imagecodecs.jpeg2k_encode(pixels, reversible=True, level=0, codecformat="j2k")
    ),
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_every_encoding_gives_the_same_volume(tmp_path, name):
    values = write_series(tmp_path, slices=6, rows=32, columns=40, edit=ENCODINGS[name])
    volume = read_series(read_headers(sorted(tmp_path.iterdir())))
    assert volume.array.dtype == np.int16
    np.testing.assert_array_equal(volume.array, values)
    assert (volume.slope, volume.intercept) == (1, -1024)


@pytest.mark.parametrize("name", ["JPEG-LS", "JPEG 2000", "RLE", "JPEG lossless"])
def test_damaged_compressed_pixels_are_one_clear_error(tmp_path, name):
    write_series(tmp_path, slices=1, rows=32, columns=40, edit=ENCODINGS[name])
    (path,) = tmp_path.iterdir()
    data = path.read_bytes()
    for cut in (40, 200, len(data) // 4):
        path.write_bytes(data[:-cut])
        (problem,) = check_series([read_header(path)]).problems
        assert "truncated" in problem.problem
        assert problem.severity == "error"
        with pytest.raises(DicomError, match="truncated") as caught:
            read_series(read_headers([path]))
        assert caught.value.remedy


def test_a_frame_that_announces_another_size_is_not_decoded(tmp_path):
    def edit(dataset, number):
        ENCODINGS["JPEG-LS"](dataset, number)
        dataset.Rows = 31

    write_series(tmp_path, slices=1, rows=32, columns=40, edit=edit)
    with pytest.raises(DicomError, match=r"announce \(32, 40, 1\).*the header says \(31, 40, 1\)"):
        read_series(read_headers(tmp_path.iterdir()))


def test_a_range_and_a_preview_read_only_their_slices(tmp_path):
    values = write_series(tmp_path, slices=20, rows=16, columns=24, spacing=(1, 2, 3))
    headers = read_headers(sorted(tmp_path.iterdir()))
    source = open_series(headers)
    assert source.shape == (20, 16, 24)
    for header in headers:
        if header.instance_number not in (6, 8, 10):
            header.path.unlink()
    part = source.read(5, 10, 2)
    np.testing.assert_array_equal(part.array, values[5:10:2])
    assert (part.spacing, part.origin) == ((1, 2, 6), (-10, 20, 45))
    with pytest.raises(FileNotFoundError):
        source.read()
    with pytest.raises(DicomError, match="none of the 20"):
        source.read(7, 7)


def test_a_preview_is_small_and_placed_right(tmp_path):
    values = write_series(tmp_path, slices=20, rows=16, columns=24, spacing=(1, 2, 3))
    preview = open_series(read_headers(tmp_path.iterdir())).preview(8)
    np.testing.assert_array_equal(preview.array, values[::3, ::3, ::3])
    assert preview.spacing == (3, 6, 9)


def test_slices_of_different_slope_become_real_values(tmp_path):
    def edit(dataset, number):
        dataset.RescaleSlope, dataset.RescaleIntercept = str(0.5 + number), "0"

    values = write_series(tmp_path, slices=3, edit=edit)
    volume = read_series(read_headers(tmp_path.iterdir()))
    assert (volume.array.dtype, volume.slope, volume.intercept) == (np.float32, 1, 0)
    np.testing.assert_allclose(volume.array, values * np.array([0.5, 1.5, 2.5])[:, None, None])


@pytest.mark.parametrize(("signed", "expected"), [(1, [-1, 5, -2048]), (0, [4095, 5, 2048])])
def test_bits_above_bits_stored_are_ignored(tmp_path, signed, expected):
    dataset = make_dataset(0, np.array([[0x7FFF, 0x1005, 0x0800]], np.int16))
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, signed
    dataset.save_as(tmp_path / "x.dcm", enforce_file_format=True)
    volume = read_series(read_headers(tmp_path.iterdir()))
    assert volume.array.ravel().tolist() == expected


def test_a_tilted_stack_is_told_and_resampled_when_asked(tmp_path):
    def edit(dataset, number):
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, float(y) - 3.0 * number, z]
        pixels = np.zeros((16, 8), np.int16)
        pixels[8 + number] = 1000  # the same LPS y in every slice, for 3 mm rows
        dataset.PixelData = pixels.tobytes()

    write_series(tmp_path, slices=4, rows=16, columns=8, spacing=(1, 3, 2), edit=edit)
    volume = read_series(read_headers(tmp_path.iterdir()))
    assert volume.tilt_mm == pytest.approx((0, -3))
    assert volume.spacing == (1, 3, 2)
    straight = volume.untilted()
    assert straight.tilt_mm == (0, 0)
    assert [plane[:, 0].argmax() for plane in volume.array] == [8, 9, 10, 11]
    assert [plane[:, 0].argmax() for plane in straight.array] == [8, 8, 8, 8]
    assert straight.array.max() == 1000


def remove(number_to_remove):
    return lambda directory: (directory / f"{number_to_remove:04d}.dcm").unlink()


def test_a_missing_slice_is_no_volume(tmp_path):
    write_series(tmp_path, slices=6)
    remove(3)(tmp_path)
    with pytest.raises(DicomError, match=r"1 slice\(s\) missing after 0004\.dcm"):
        read_series(read_headers(sorted(tmp_path.iterdir())))


def test_a_localizer_is_left_out(tmp_path):
    values = write_series(tmp_path, slices=5)
    scout = make_dataset(77, np.zeros((10, 10), np.int16), orientation=(0, 1, 0, 0, 0, -1))
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    scout.save_as(tmp_path / "scout.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(read_series(read_headers(tmp_path.iterdir())).array, values)


def test_a_second_copy_of_an_instance_is_left_out(tmp_path):
    values = write_series(tmp_path, slices=5)
    (tmp_path / "copy.dcm").write_bytes((tmp_path / "0002.dcm").read_bytes())
    np.testing.assert_array_equal(read_series(read_headers(sorted(tmp_path.iterdir()))).array, values)


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (lambda d, n: n == 2 and setattr(d, "PixelSpacing", [1, 1]), r"PixelSpacing is 1\\1 instead of 0\.75\\0\.5"),
        (lambda d, n: setattr(d, "ImagePositionPatient", [0, 0, n // 2]), "2 of 5 instances lie where another"),
        (lambda d, n: setattr(d, "ImagePositionPatient", [0, 0, n * n]), "missing|not evenly spaced"),
        (lambda d, n: setattr(d, "SeriesInstanceUID", "1.2.3") if n == 1 else None, r"belongs to series 1\.2\.3"),
        (lambda d, n: setattr(d, "PixelData", d.PixelData[:50]), "PixelData has 50 bytes"),
        (lambda d, n: setattr(d, "SOPClassUID", "1.2.840.10008.5.1.4.1.1.481.3"), "None of the 5 instances"),
    ],
    ids=["spacing", "repeated", "uneven", "series", "short", "RTSTRUCT"],
)
def test_what_makes_no_volume_is_refused_with_its_remedy(tmp_path, edit, problem):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_series(tmp_path, edit=edit)
    with pytest.raises(DicomError, match=problem) as caught:
        read_series(read_headers(sorted(tmp_path.iterdir())))
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("syntax", "problem", "package"),
    [
        ("1.2.840.10008.1.2.4.201", "HTJ2K lossless", "pylibjpeg-openjpeg"),
        ("1.2.840.10008.1.2.4.110", "JPEG XL lossless", "imagecodecs"),
        ("1.2.840.10008.1.2.4.102", "video", "PyAV"),
        ("1.2.3.4", r"1\.2\.3\.4 is not known", "Explicit VR Little Endian"),
        (None, "no TransferSyntaxUID", "again"),
    ],
)
def test_a_syntax_that_is_not_decoded_names_what_reads_it(tmp_path, syntax, problem, package):
    write_series(tmp_path, slices=2)
    headers = [header._replace(transfer_syntax_uid=syntax) for header in read_headers(tmp_path.iterdir())]
    with pytest.raises(DicomError, match=problem) as caught:
        read_series(headers)
    assert package in caught.value.remedy


def enhanced(tmp_path: Path, *, frames: int = 4, compressed: bool = False) -> np.ndarray:
    values = stored_values(frames, 6, 8)
    dataset = make_dataset(0, values[0])
    for keyword in (
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "RescaleSlope",
        "RescaleIntercept",
    ):
        delattr(dataset, keyword)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{UID_ROOT}.9"
    dataset.NumberOfFrames = frames
    dataset.PixelData = values.tobytes()

    def item(**values):
        made = pydicom.Dataset()
        for keyword, value in values.items():
            setattr(made, keyword, value)
        return made

    dataset.SharedFunctionalGroupsSequence = [
        item(
            PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
            PixelMeasuresSequence=[item(PixelSpacing=[0.75, 0.5], SliceThickness=2)],
            PixelValueTransformationSequence=[item(RescaleIntercept=-1024, RescaleSlope=1, RescaleType="HU")],
        )
    ]
    order = list(range(frames))[::-1]  # last frame lowest
    dataset.PerFrameFunctionalGroupsSequence = [
        item(PlanePositionSequence=[item(ImagePositionPatient=[1, 2, 3 + 2 * place])]) for place in order
    ]
    if compressed:
        dataset.file_meta.TransferSyntaxUID = JPEGLSLossless
        dataset.PixelData = encapsulate(
            [imagecodecs.jpegls_encode(frame.view(np.uint16)) for frame in values], fragments_per_frame=2
        )
        dataset["PixelData"].VR = "OB"
    dataset.save_as(tmp_path / "x.dcm", enforce_file_format=True)
    return values[::-1]


@pytest.mark.parametrize("compressed", [False, True])
def test_enhanced_multi_frame_has_the_geometry_of_its_frames(tmp_path, compressed):
    values = enhanced(tmp_path, compressed=compressed)
    volume = read_series(read_headers(tmp_path.iterdir()))
    np.testing.assert_array_equal(volume.array, values)
    assert (volume.spacing, volume.origin, volume.intercept) == ((0.5, 0.75, 2), (1, 2, 3), -1024)


def test_frames_that_are_not_described_are_an_error(tmp_path):
    enhanced(tmp_path)
    (header,) = read_headers(tmp_path.iterdir())
    with pytest.raises(DicomError, match="describes 4 frames; NumberOfFrames is 5"):
        frames_of([header._replace(number_of_frames=5)])


def test_frames_without_positions_are_taken_in_their_order():
    path = Path(pydicom.data.__file__).parent / "test_files" / "SC_rgb_rle_2frame.dcm"
    volume = read_series(read_headers([path]))
    assert volume.shape == (2, 100, 100, 3)
    assert volume.spacing == (1, 1, 1)


def test_an_impossible_size_is_refused_before_memory_is_reserved(tmp_path):
    def edit(dataset, _number):
        ENCODINGS["JPEG-LS"](dataset, 0)
        dataset.Rows = dataset.Columns = 65535

    write_series(tmp_path, slices=1, rows=32, columns=40, edit=edit)
    with pytest.raises(DicomError, match=r"at most 1024 MiB|has .* bytes of compressed pixels"):
        read_series(read_headers(tmp_path.iterdir()))


def test_reading_tells_progress_and_can_be_cancelled(tmp_path):
    write_series(tmp_path, slices=12)
    source = open_series(read_headers(tmp_path.iterdir()))
    told = []
    source.read(job=Job(lambda *step: told.append(step)))
    assert told[-1] == (12, 12, "reading slices")
    job = Job(lambda done, total, what: job.cancel())
    with pytest.raises(CancelledError):
        source.read(job=job)


def test_the_error_of_a_series_names_no_patient(tmp_path):
    write_series(tmp_path)
    remove(3)(tmp_path)
    with pytest.raises(DicomError) as caught:
        read_series(read_headers(sorted(tmp_path.iterdir())))
    assert "SECRET" not in str(caught.value)
