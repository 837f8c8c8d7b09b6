from __future__ import annotations

import gzip
import shutil
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_maker import series_uid, write_run, write_series
from hypothesis import given, settings
from hypothesis import strategies as st

from kaapana_nb.data.batch import Batch
from kaapana_nb.data.convert import FORMATS, convert_element, convert_series, real_type
from kaapana_nb.data.nifti import nifti_header
from kaapana_nb.data.progress import CancelledError, Job
from kaapana_nb.data.reader import read_headers
from kaapana_nb.data.series import open_series
from kaapana_nb.errors import AlgorithmError, DicomError, UsageError

FLOAT32 = 1e-5  # NIfTI keeps geometry in 32-bit numbers


def assert_same(left: sitk.Image, right: sitk.Image, tolerance: float) -> None:
    np.testing.assert_array_equal(sitk.GetArrayViewFromImage(left), sitk.GetArrayViewFromImage(right))
    assert left.GetPixelID() == right.GetPixelID()
    for get in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(left, get)(), getattr(right, get)(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("image_format", FORMATS)
def test_every_real_series_reads_back_as_the_image(sample_run, tmp_path, image_format):
    run = shutil.copytree(sample_run, tmp_path / "run")
    for element in Batch.open(run).with_output("converter"):
        path = convert_element(element, image_format)
        assert path == element.output_dir / f"{element.series_uid}.{image_format}"
        assert_same(sitk.ReadImage(str(path)), element.image(), 1e-12 if image_format == "nrrd" else FLOAT32)
        path.unlink()


@pytest.mark.skipif(shutil.which("dcm2niix") is None, reason="dcm2niix is not installed")
def test_every_real_series_lies_where_dcm2niix_puts_it(sample_run, tmp_path):
    for element in Batch.open(sample_run):
        subprocess.run(
            ["dcm2niix", "-o", tmp_path, "-f", element.name, "-z", "n", "-b", "n", element.input_dir],
            check=True,
            capture_output=True,
        )
        theirs = sitk.ReadImage(str(tmp_path / f"{element.name}.nii"))
        ours = element.image()
        # dcm2niix stores the rows from the last to the first
        np.testing.assert_array_equal(sitk.GetArrayFromImage(theirs)[:, ::-1], sitk.GetArrayFromImage(ours))
        width, height, depth = ours.GetSize()
        for x, y, z in ((0, 0, 0), (width - 1, height - 1, 0), (0, 0, 1)):
            np.testing.assert_allclose(
                theirs.TransformIndexToPhysicalPoint((x, height - 1 - y, z)),
                ours.TransformIndexToPhysicalPoint((x, y, z)),
                atol=0.08,  # dcm2niix takes the distance of the first two slices, we the mean: 0.07 mm in one series
            )
        assert depth == theirs.GetSize()[2]


def test_the_same_series_gives_the_same_bytes(tmp_path):
    element = Batch.open(write_run(tmp_path, ("1",)))[0]
    for image_format in FORMATS:
        first = convert_element(element, image_format).read_bytes()
        assert convert_element(element, image_format).read_bytes() == first


def test_a_gzip_stream_of_many_chunks_is_whole(tmp_path):
    values = write_series(tmp_path / "in", slices=40, rows=256, columns=200)  # 4 MB: several chunks of 1 MiB
    source = open_series(read_headers((tmp_path / "in").iterdir()))
    convert_series(source, tmp_path / "x.nrrd")
    head, _, packed = (tmp_path / "x.nrrd").read_bytes().partition(b"\n\n")
    assert b"encoding: gzip" in head
    assert gzip.decompress(packed) == (values - 1024).astype("<i2").tobytes()
    convert_series(source, tmp_path / "raw.nrrd", compress=False)
    assert (tmp_path / "raw.nrrd").read_bytes().endswith((values - 1024).astype("<i2").tobytes())
    assert_same(sitk.ReadImage(str(tmp_path / "raw.nrrd")), sitk.ReadImage(str(tmp_path / "x.nrrd")), 0)


@pytest.mark.parametrize(
    ("slope", "intercept", "signed", "stored"),
    [("1", "-1024", 1, 16), ("1", "0", 0, 12), ("2", "-32768", 1, 16), ("70000", "0", 1, 16), ("0.5", "0", 1, 16)],
)
def test_the_type_is_that_of_the_whole_volume(tmp_path, slope, intercept, signed, stored):
    def edit(dataset, number):
        dataset.RescaleSlope, dataset.RescaleIntercept, dataset.PixelRepresentation = slope, intercept, signed
        dataset.BitsStored, dataset.HighBit = stored, stored - 1

    write_series(tmp_path, slices=4, edit=edit)
    source = open_series(read_headers(tmp_path.iterdir()))
    assert real_type(source) == source.read().rescaled().dtype
    convert_series(source, tmp_path / "x.nrrd")
    assert_same(sitk.ReadImage(str(tmp_path / "x.nrrd")), source.read().to_image(), 1e-12)


def test_colour_goes_to_nrrd_and_not_to_nifti(tmp_path):
    from pathlib import Path

    import pydicom.data

    source = open_series(read_headers([Path(pydicom.data.__file__).parent / "test_files" / "SC_rgb_rle_2frame.dcm"]))
    convert_series(source, tmp_path / "x.nrrd")
    image = sitk.ReadImage(str(tmp_path / "x.nrrd"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), source.read().array)
    with pytest.raises(AlgorithmError, match="cannot be written as NIfTI"):
        convert_series(source, tmp_path / "x.nii", "nii")
    assert not (tmp_path / "x.nii").exists()


def test_a_tilted_stack_is_refused(tmp_path):
    def edit(dataset, number):
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, float(y) + number, z]

    write_series(tmp_path / "in", edit=edit)
    with pytest.raises(DicomError, match="tilted") as caught:
        convert_series(open_series(read_headers((tmp_path / "in").iterdir())), tmp_path / "x.nrrd")
    assert "untilted" in caught.value.remedy
    assert not (tmp_path / "x.nrrd").exists()


def test_an_unknown_format_is_a_wrong_call(tmp_path):
    element = Batch.open(write_run(tmp_path, ("1",)))[0]
    with pytest.raises(UsageError, match="no image format 'mhd'"):
        convert_element(element, "mhd")  # type: ignore[arg-type]


def test_cancelled_work_leaves_no_file(tmp_path):
    element = Batch.open(write_run(tmp_path, ("1",)))[0]
    job = Job(lambda done, total, what: job.cancel())
    with pytest.raises(CancelledError):
        convert_element(element, job=job)
    assert not element.output_dir.exists() or not list(element.output_dir.iterdir())
    assert element.series_uid == series_uid("1")


def test_memory_stays_at_a_few_slices(tmp_path):
    write_series(tmp_path / "in", slices=200, rows=256, columns=256)  # 26 MB
    code = (
        "import sys; from pathlib import Path\n"
        "def peak():\n"
        "    status = Path('/proc/self/status').read_text()\n"
        "    return int(status.partition('VmHWM:')[2].split()[0])\n"
        "from kaapana_nb.data.reader import read_headers; from kaapana_nb.data.series import open_series\n"
        "from kaapana_nb.data import convert\n"
        "convert._SLAB_BYTES = 1 << 20\n"
        "source = open_series(read_headers(Path(sys.argv[1]).iterdir()))\n"
        "before = peak()\n"
        "convert.convert_series(source, Path(sys.argv[2]))\n"
        "print(peak() - before)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "in"), str(tmp_path / "x.nrrd")]
    kib = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert kib < 18_000


@settings(max_examples=60, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-3.2, 3.2)] * 3),
    mirrored=st.booleans(),
    spacing=st.tuples(*[st.floats(0.1, 10)] * 3),
    origin=st.tuples(*[st.floats(-500, 500)] * 3),
)
def test_any_orientation_reads_back_from_nifti(tmp_path_factory, angles, mirrored, spacing, origin):
    transform = sitk.Euler3DTransform()
    transform.SetRotation(*angles)
    direction = np.array(transform.GetMatrix()).reshape(3, 3)
    if mirrored:
        direction[:, 2] *= -1
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    path = tmp_path_factory.mktemp("nifti") / "x.nii"
    header = nifti_header(array.shape, array.dtype, spacing=spacing, origin=origin, direction=direction.ravel())
    assert len(header) == 352
    path.write_bytes(header + array.tobytes())
    image = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), array)
    np.testing.assert_allclose(image.GetSpacing(), spacing, rtol=1e-5)
    np.testing.assert_allclose(image.GetOrigin(), origin, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(image.GetDirection(), direction.ravel(), atol=1e-5)
    path.write_bytes(header[:254] + b"\0\0" + header[256:] + array.tobytes())  # sform_code 0: the quaternion counts
    image = sitk.ReadImage(str(path))
    np.testing.assert_allclose(image.GetOrigin(), origin, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(image.GetDirection(), direction.ravel(), atol=2e-3)
