from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from kaapana_nb.data.volume import SeriesVolume
from kaapana_nb.errors import BatchError

DIRECTION = (0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0)


def test_image_and_volume_are_equal_both_ways():
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    volume = SeriesVolume(array=array, spacing=(0.3, 0.4, 2), origin=(1, 2, 3), direction=DIRECTION)
    image = volume.to_image()
    assert image.GetSize() == (4, 3, 2)
    back = SeriesVolume.from_image(image)
    np.testing.assert_array_equal(back.array, array)
    assert (back.spacing, back.origin, back.direction) == (volume.spacing, volume.origin, volume.direction)
    # array index (slice, row, column) = (1, 2, 3) lies where SimpleITK says index (3, 2, 1) lies
    index = np.array([3, 2, 1]) * volume.spacing
    expected = np.array(volume.origin) + np.array(DIRECTION).reshape(3, 3) @ index
    np.testing.assert_allclose(image.TransformIndexToPhysicalPoint((3, 2, 1)), expected)


def test_colour_keeps_its_samples():
    array = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    image = SeriesVolume(array=array).to_image()
    assert image.GetNumberOfComponentsPerPixel() == 3
    np.testing.assert_array_equal(SeriesVolume.from_image(image).array, array)


def test_a_plane_becomes_one_slice():
    image = sitk.GetImageFromArray(np.arange(12, dtype=np.int16).reshape(3, 4))
    image.SetDirection((0, -1, 1, 0))
    volume = SeriesVolume.from_image(image)
    assert volume.shape == (1, 3, 4)
    assert volume.direction == (0, -1, 0, 1, 0, 0, 0, 0, 1)


@given(
    low=st.integers(-32768, 32767),
    high=st.integers(-32768, 32767),
    slope=st.integers(-70000, 70000),
    intercept=st.integers(-(2**33), 2**33),
)
def test_whole_rescaling_is_exact_in_the_smallest_type(low, high, slope, intercept):
    array = np.array([[[low, high]]], dtype=np.int16)
    volume = SeriesVolume(array=array, slope=float(slope), intercept=float(intercept))
    result = volume.rescaled()
    expected = [low * slope + intercept, high * slope + intercept]
    assert result.ravel().tolist() == expected
    if (slope, intercept) != (1, 0):
        fits = [
            kind
            for kind in (np.int16, np.uint16, np.int32, np.uint32, np.int64)
            if np.iinfo(kind).min <= min(expected) and max(expected) <= np.iinfo(kind).max
        ]
        assert result.dtype == fits[0]


def test_broken_slopes_give_float():
    volume = SeriesVolume(array=np.array([[[0, 10]]], np.uint16), slope=0.25, intercept=-1.5)
    result = volume.rescaled()
    assert result.dtype == np.float32
    assert result.ravel().tolist() == [-1.5, 1.0]


def test_stored_values_can_be_had_as_an_image():
    volume = SeriesVolume(array=np.array([[[7]]], ">i2"), intercept=-1024)
    assert volume.to_image(rescale=False)[0, 0, 0] == 7
    assert volume.to_image()[0, 0, 0] == -1017


@pytest.mark.parametrize("fields", [{"array": np.zeros((3, 4))}, {"array": np.zeros((1, 1, 1)), "spacing": (1.0, 1.0)}])
def test_what_is_no_volume_is_refused(fields):
    with pytest.raises(BatchError, match=r"was expected|were expected"):
        SeriesVolume(**fields)
