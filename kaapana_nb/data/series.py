"""Reading one DICOM series as a `SeriesVolume`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kaapana_nb.data.volume import SeriesVolume
from kaapana_nb.errors import DicomError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kaapana_nb.data.header import InstanceHeader


def read_series(headers: Sequence[InstanceHeader]) -> SeriesVolume:
    """The volume of a series of single-frame instances, slices in increasing position along the normal."""
    if not headers:
        raise DicomError("The series has no instance.", "Check the batch: kaapana-nb batch check DIR")
    first = headers[0]
    orientation = np.array(first.image_orientation or (1, 0, 0, 0, 1, 0), dtype=float)
    normal = np.cross(orientation[:3], orientation[3:])
    placed = sorted(
        ((float(normal @ np.array(header.image_position or (0, 0, 0))), index) for index, header in enumerate(headers))
    )
    ordered = [headers[index] for _, index in placed]
    array = np.stack([_frame(header) for header in ordered])
    depth = (placed[-1][0] - placed[0][0]) / (len(placed) - 1) if len(placed) > 1 else first.slice_thickness_mm or 1.0
    rows_mm, columns_mm = (first.pixel_spacing or (1.0, 1.0))[:2]
    direction = np.stack([orientation[:3], orientation[3:], normal], axis=1)
    x, y, z = ordered[0].image_position or (0.0, 0.0, 0.0)
    return SeriesVolume(
        array=array,
        spacing=(columns_mm, rows_mm, depth),
        origin=(x, y, z),
        direction=tuple(float(value) for value in direction.ravel()),
        slope=1.0 if first.rescale_slope is None else first.rescale_slope,
        intercept=first.rescale_intercept or 0.0,
    )


def _frame(header: InstanceHeader) -> NDArray[Any]:
    import pydicom

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            array: NDArray[Any] = pydicom.dcmread(header.path).pixel_array
    except Exception as error:
        raise DicomError(
            f"The pixels of {header.path.name} cannot be read ({type(error).__name__}).",
            "Fetch the series again, or check the batch: kaapana-nb batch check DIR",
        ) from error
    return array
