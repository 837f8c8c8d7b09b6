"""`SeriesVolume`: one series as one array with its geometry."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kaapana_nb.errors import BatchError

if TYPE_CHECKING:
    import SimpleITK as sitk
    from numpy.typing import NDArray

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
_RESCALED_TYPES = (np.int16, np.uint16, np.int32, np.uint32, np.int64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SeriesVolume:
    """One series in memory.

    Attributes
    ----------
    array
        Stored values, axes (slices, rows, columns), or (slices, rows, columns, samples) for colour.
    spacing
        mm between neighbours along columns, rows and slices, i.e. (x, y, z) as in SimpleITK:
        the reverse of the array's axes.
    origin
        LPS position of the centre of ``array[0, 0, 0]``, mm.
    direction
        3 x 3 matrix, row by row as in SimpleITK: its columns are the LPS unit vectors of increasing
        column, row and slice index.
    slope, intercept
        RescaleSlope and RescaleIntercept (PS3.3 C.11.1): real value = stored value * slope + intercept,
        Hounsfield units in CT.
    tilt_mm
        How far each slice lies off the one before it along columns and rows, mm: a gantry tilt. Spacing
        and direction say nothing of it; `untilted` resamples. (0, 0) for straight stacks.
    """

    array: NDArray[Any]
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = IDENTITY
    slope: float = 1.0
    intercept: float = 0.0
    tilt_mm: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if self.array.ndim not in (3, 4):
            raise BatchError(
                f"A volume was made of an array of shape {self.array.shape}; "
                "(slices, rows, columns) or (slices, rows, columns, samples) was expected.",
                "Add the missing axis, e.g. array[numpy.newaxis] for one slice.",
            )
        if len(self.direction) != 9 or len(self.spacing) != 3 or len(self.origin) != 3:
            raise BatchError(
                f"A volume was given {len(self.spacing)} spacings, {len(self.origin)} origin coordinates and "
                f"{len(self.direction)} direction numbers; 3, 3 and 9 were expected.",
                "Copy spacing, origin and direction from the volume that the array comes from.",
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return tuple(self.array.shape)

    def __repr__(self) -> str:
        spacing = " x ".join(f"{value:.4g}" for value in self.spacing)
        return f"SeriesVolume({' x '.join(map(str, self.shape))} {self.array.dtype}, {spacing} mm)"

    def rescaled(self, dtype: np.dtype[Any] | None = None) -> NDArray[Any]:
        """Real values (HU in CT), same axes as the array.

        Where slope and intercept are whole numbers the result has the smallest of int16, uint16, int32,
        uint32 and int64 that holds the values that occur; float32 otherwise. The array itself is
        returned where there is nothing to do.

        Parameters
        ----------
        dtype
            Element type of the result, where the caller knows one that holds the values.
        """
        if self.slope == 1 and self.intercept == 0:
            return self.array if dtype is None else self.array.astype(dtype, copy=False)
        if dtype is None:
            dtype = smallest_type(self.slope, self.intercept, *_extremes(self.array))
        if dtype.kind in "iu":
            return _scale_integers(self.array, int(self.slope), int(self.intercept), dtype)
        return (self.array * np.float64(self.slope) + np.float64(self.intercept)).astype(dtype)

    def to_image(self, *, rescale: bool = True) -> sitk.Image:
        """The volume as a SimpleITK image of equal geometry; real values unless `rescale` is false."""
        import SimpleITK as sitk

        array = self.rescaled() if rescale else self.array
        if array.dtype.kind == "b":
            array = array.view(np.uint8)
        if not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))
        image = sitk.GetImageFromArray(array, isVector=array.ndim == 4)
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction)
        return image

    def untilted(self) -> SeriesVolume:
        """The volume resampled so that spacing, origin and direction say where each voxel lies.

        Each slice is shifted back within its plane, by linear interpolation; the volume keeps its first
        slice's origin and grows by nothing, so what is shifted out is lost and what is shifted in is the
        lowest value of the volume.
        """
        if self.tilt_mm == (0.0, 0.0):
            return self
        result = np.empty_like(self.array)
        fill = self.array.min() if self.array.size else 0
        for index, plane in enumerate(self.array):
            columns = self.tilt_mm[0] * index / self.spacing[0]
            rows = self.tilt_mm[1] * index / self.spacing[1]
            shifted = _shift(_shift(plane.astype(np.float64), rows, 0, fill), columns, 1, fill)
            result[index] = np.rint(shifted) if self.array.dtype.kind in "iu" else shifted
        return replace(self, array=result, tilt_mm=(0.0, 0.0))

    @classmethod
    def from_image(cls, image: sitk.Image) -> SeriesVolume:
        """The volume of a SimpleITK image (2D images become one slice); the pixels are copied.

        Raises
        ------
        BatchError
            When the image has more than three dimensions.
        """
        import SimpleITK as sitk

        dimension = image.GetDimension()
        if dimension not in (2, 3):
            raise BatchError(
                f"The image has {dimension} dimensions; 2 or 3 were expected.",
                "Extract one volume first: image[..., 0].",
            )
        array = sitk.GetArrayFromImage(image)
        spacing, origin, direction = image.GetSpacing(), image.GetOrigin(), image.GetDirection()
        if dimension == 2:
            array = array[np.newaxis]
            spacing, origin = (*spacing, 1.0), (*origin, 0.0)
            direction = (direction[0], direction[1], 0.0, direction[2], direction[3], 0.0, 0.0, 0.0, 1.0)
        return cls(array=array, spacing=tuple(spacing), origin=tuple(origin), direction=tuple(direction))


def smallest_type(slope: float, intercept: float, low: Any, high: Any) -> np.dtype[Any]:
    """Element type of ``stored * slope + intercept`` for stored values from `low` to `high` (numpy scalars or ints)."""
    whole = float(slope).is_integer() and float(intercept).is_integer()
    if whole and not isinstance(low, (float, np.floating)):
        ends = [int(value) * int(slope) + int(intercept) for value in (low, high)]
        for candidate in _RESCALED_TYPES:
            limits = np.iinfo(candidate)
            if limits.min <= min(ends) and max(ends) <= limits.max:
                return np.dtype(candidate)
    return np.dtype(np.float32)


def _scale_integers(array: NDArray[Any], slope: int, intercept: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """``array * slope + intercept`` in `dtype`, whose range the caller has checked to hold every result.

    Arithmetic modulo 2**bits gives the right result whenever the result is in range, whatever the
    intermediate values, so no wider copy is needed.
    """
    bits = dtype.itemsize * 8
    unsigned = np.dtype(f"u{dtype.itemsize}")
    result = np.empty(array.shape, dtype)
    factor, summand = unsigned.type(slope % 2**bits), unsigned.type(intercept % 2**bits)
    for plane, made in zip(array, result, strict=True):  # one plane stays in the processor's cache
        made[...] = plane
        bare = made.view(unsigned)
        if slope != 1:
            bare *= factor
        bare += summand
    return result


def _extremes(array: NDArray[Any]) -> tuple[Any, Any]:
    """Lowest and highest value; zeros for an empty array."""
    if not array.size:
        return 0, 0
    ends = [(plane.min(), plane.max()) for plane in array]
    return min(low for low, _ in ends), max(high for _, high in ends)


def _shift(plane: NDArray[Any], distance: float, axis: int, fill: float) -> NDArray[Any]:
    """`plane` moved by `distance` elements along `axis` towards higher indices; linear in between."""
    count = plane.shape[axis]
    positions = np.arange(count) - distance
    low = np.floor(positions).astype(np.int64)
    part = positions - low
    shape = [1] * plane.ndim
    shape[axis] = count
    weight = part.reshape(shape)
    outside = ((positions < 0) | (positions > count - 1)).reshape(shape)
    before = np.take(plane, np.clip(low, 0, count - 1), axis=axis)
    after = np.take(plane, np.clip(low + 1, 0, count - 1), axis=axis)
    return np.where(outside, fill, before * (1 - weight) + after * weight)
