"""What two files of the same name differ in: images, JSON, tables, pictures, and bytes for all else.

Each function returns an empty text when there is no difference. No text value is quoted, since it
may identify a patient: of texts only lengths are told, of long numbers only their difference.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_CHUNK = 1 << 20
_LONG_NUMBER = 10_000  # from here on a whole number may be somebody's number
_PLAIN_KEY = re.compile(r"[A-Za-z][A-Za-z_]{0,39}[0-9]{0,3}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How far numbers may lie apart: ``|a - b| <= max(absolute, relative * max(|a|, |b|))``."""

    absolute: float = 0.0
    relative: float = 0.0

    def allows(self, left: float, right: float) -> bool:
        """Whether the two numbers count as the same; NaN is the same as NaN."""
        if left == right or (math.isnan(left) and math.isnan(right)):
            return True
        return abs(left - right) <= max(self.absolute, self.relative * max(abs(left), abs(right)))


EXACT = Tolerance()


def kind_of(name: str) -> str:
    """The suffix that says how a file is compared; ``.nii.gz`` counts as one."""
    lower = name.lower()
    return ".nii.gz" if lower.endswith(".nii.gz") else Path(lower).suffix


def file_difference(left: Path, right: Path, tolerance: Tolerance, *, known_uids: frozenset[str]) -> str:
    """What two files differ in.

    Parameters
    ----------
    known_uids
        UIDs of the batch's own series and instances: no newly made DICOM object has one of these.
    """
    try:
        if _same_bytes(left, right):
            return ""
        kind = kind_of(left.name)
        if kind == ".dcm":
            from kaapana_nb.ship.compare_dicom import dicom_difference

            return dicom_difference(left, right, tolerance, known_uids)
        return _KINDS.get(kind, _bytes_difference)(left, right, tolerance)
    except Exception as error:  # noqa: BLE001 - readers of damaged files raise any kind, and their texts quote content
        return f"the bytes differ, and the contents cannot be compared ({type(error).__name__})"


def array_difference(left: npt.NDArray[Any], right: npt.NDArray[Any], tolerance: Tolerance, unit: str) -> str:
    """How many values of two arrays of one shape differ, by how much, and where the first one is.

    The index is told in the array's order (slice, row, column).
    """
    count, largest, first = 0, 0.0, -1
    one, other = left.reshape(-1), right.reshape(-1)
    for start in range(0, one.size, _CHUNK):
        places = _outside(one[start : start + _CHUNK], other[start : start + _CHUNK], tolerance)
        if places.size:
            first = start + int(places[0]) if first < 0 else first
            count += int(places.size)
            largest = max(largest, float(np.max(_apart(one[start + places], other[start + places]))))
    if not count:
        return ""
    index = tuple(int(number) for number in np.unravel_index(first, left.shape))
    return (
        f"{count} of {left.size} {unit} differ, by at most {largest:.6g}; first at index {index}: "
        f"{left[index]} and {right[index]}"
    )


def _outside(left: npt.NDArray[Any], right: npt.NDArray[Any], tolerance: Tolerance) -> npt.NDArray[np.intp]:
    """Where two flat arrays lie further apart than allowed; NaN is the same as NaN and as nothing else."""
    different = left != right
    if left.dtype.kind in "fc":
        different &= ~(np.isnan(left) & np.isnan(right))
    places = np.flatnonzero(different)
    if tolerance == EXACT or not places.size:
        return places
    left, right = left[places], right[places]
    size = np.maximum(*(np.abs(_widened(array)) for array in (left, right)))
    with np.errstate(invalid="ignore", over="ignore"):
        bound = np.maximum(tolerance.absolute, tolerance.relative * size)
        outside: npt.NDArray[np.bool_] = ~(_apart(left, right) <= bound) | ~np.isfinite(size)
    return places[outside]


def _apart(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Distances; infinite where one side is NaN."""
    with np.errstate(invalid="ignore", over="ignore"):
        distance = np.abs(_widened(left) - _widened(right))
    return np.where(np.isnan(distance), np.inf, distance)


def _widened(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def text_difference(left: str, right: str) -> str:
    """Two texts that are not equal, without quoting them."""
    return f"texts of {len(left)} and {len(right)} characters differ"


def number_difference(left: float, right: float) -> str:
    """Two numbers that are not equal; whole numbers that may be somebody's are not quoted."""
    if isinstance(left, int) and isinstance(right, int) and max(abs(left), abs(right)) >= _LONG_NUMBER:
        return f"whole numbers that lie {abs(left - right)} apart"
    return f"{left!r} and {right!r}"


def _same_bytes(left: Path, right: Path) -> bool:
    with left.open("rb") as one, right.open("rb") as other:
        while True:
            chunk = one.read(_CHUNK)
            if chunk != other.read(_CHUNK):
                return False
            if not chunk:
                return True


def _bytes_difference(left: Path, right: Path, _: Tolerance) -> str:
    sizes = left.stat().st_size, right.stat().st_size
    return f"the bytes differ ({sizes[0]} and {sizes[1]} bytes)"


def _image_difference(left: Path, right: Path, tolerance: Tolerance) -> str:
    """Pixel type and geometry exactly, then the voxels; headers that say nothing of these do not count."""
    import SimpleITK as sitk

    images = [sitk.ReadImage(str(path)) for path in (left, right)]
    if text := _facts_difference(*(_geometry(image) for image in images)):
        return text
    one, other = (np.asarray(sitk.GetArrayViewFromImage(image)) for image in images)
    return array_difference(one, other, tolerance, "voxels")


def _geometry(image: Any) -> dict[str, Any]:
    return {
        "pixel type": image.GetPixelIDTypeAsString(),
        "components per voxel": image.GetNumberOfComponentsPerPixel(),
        "size": image.GetSize(),
        "spacing (mm)": image.GetSpacing(),
        "origin (mm)": image.GetOrigin(),
        "direction": image.GetDirection(),
    }


def _picture_difference(left: Path, right: Path, tolerance: Tolerance) -> str:
    """The decoded pixels; resolution and text chunks of a PNG do not count."""
    import SimpleITK as sitk

    one, other = (sitk.GetArrayFromImage(sitk.ReadImage(str(path))) for path in (left, right))
    facts = [{"pixel type": array.dtype.name, "size": array.shape} for array in (one, other)]
    return _facts_difference(*facts) or array_difference(one, other, tolerance, "pixel values")


def _facts_difference(left: dict[str, Any], right: dict[str, Any]) -> str:
    return next((f"{what}: {left[what]} and {right[what]}" for what in left if left[what] != right[what]), "")


def _json_difference(left: Path, right: Path, tolerance: Tolerance) -> str:
    return _value_difference(json.loads(left.read_bytes()), json.loads(right.read_bytes()), tolerance, "$")


def _value_difference(left: Any, right: Any, tolerance: Tolerance, where: str) -> str:
    if type(left) is not type(right):
        return f"{where}: a value of type {type(left).__name__} and one of type {type(right).__name__}"
    if isinstance(left, dict):
        if left.keys() != right.keys():
            key = min(left.keys() ^ right.keys())
            return f"{_below(where, key)}: only the {'left' if key in left else 'right'} side has it"
        pairs = [(_below(where, key), left[key], right[key]) for key in left]
    elif isinstance(left, list):
        if len(left) != len(right):
            return f"{where}: {len(left)} and {len(right)} items"
        pairs = [(f"{where}[{index}]", *items) for index, items in enumerate(zip(left, right, strict=True))]
    elif isinstance(left, str):
        return "" if left == right else f"{where}: {text_difference(left, right)}"
    elif isinstance(left, float):
        return "" if tolerance.allows(left, right) else f"{where}: {number_difference(left, right)}"
    elif isinstance(left, int) and not isinstance(left, bool):
        # Without a tolerance no number is turned into a float: long ones would lose their last digits.
        same = left == right or (tolerance != EXACT and tolerance.allows(left, right))
        return "" if same else f"{where}: {number_difference(left, right)}"
    else:
        return "" if left == right else f"{where}: {left!r} and {right!r}"
    return next((text for place, one, other in pairs if (text := _value_difference(one, other, tolerance, place))), "")


def _below(where: str, key: str) -> str:
    return f"{where}.{key}" if _PLAIN_KEY.match(key) else f"{where}.<key of {len(key)} characters>"


def _table_difference(left: Path, right: Path, tolerance: Tolerance) -> str:
    tables = [list(csv.reader(io.StringIO(path.read_text("utf-8-sig"), newline=""))) for path in (left, right)]
    for row, (one, other) in enumerate(zip(*tables, strict=False), start=1):
        if len(one) != len(other):
            return f"row {row}: {len(one)} and {len(other)} cells"
        for column, cells in enumerate(zip(one, other, strict=True), start=1):
            if cells[0] != cells[1] and not _close_cells(*cells, tolerance):
                return f"row {row}, column {column}: {text_difference(*cells)}"
    if len(tables[0]) != len(tables[1]):
        return f"{len(tables[0])} and {len(tables[1])} rows"
    return ""


def _close_cells(left: str, right: str, tolerance: Tolerance) -> bool:
    if tolerance == EXACT:
        return False
    try:
        return tolerance.allows(float(left), float(right))
    except ValueError:
        return False


_KINDS: dict[str, Callable[[Path, Path, Tolerance], str]] = {
    ".nrrd": _image_difference,
    ".nii": _image_difference,
    ".nii.gz": _image_difference,
    ".mha": _image_difference,
    ".png": _picture_difference,
    ".json": _json_difference,
    ".csv": _table_difference,
}
