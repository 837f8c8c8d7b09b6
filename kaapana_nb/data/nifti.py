"""The header of NIfTI-1 files (https://nifti.nimh.nih.gov/nifti-1), whose world is RAS where DICOM's is LPS."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from kaapana_nb.errors import AlgorithmError

_TYPES = {
    "uint8": 2, "int16": 4, "int32": 8, "float32": 16, "float64": 64, "int8": 256, "uint16": 512, "uint32": 768,
    "int64": 1024, "uint64": 1280,
}  # fmt: skip
_HEADER = struct.Struct("<i28xihBB8h3f4h8f3fhBB4f2i80s24shh6f4f4f4f16s4s")
_DATA_OFFSET = 352
_MM = 2
_SCANNER = 1  # qform and sform code: positions in the scanner
_MAX_SIZE = 32767


def nifti_header(
    shape: Sequence[int],
    dtype: np.dtype[Any],
    *,
    spacing: Sequence[float],
    origin: Sequence[float],
    direction: Sequence[float],
) -> bytes:
    """The 352 bytes before the voxels of a three-dimensional single-file NIfTI-1 image, little endian.

    Parameters
    ----------
    shape
        (slices, rows, columns) of the array.
    spacing, origin, direction
        As of a `SeriesVolume`: mm, LPS. Both the quaternion (qform) and the matrix (sform) are written.

    Raises
    ------
    AlgorithmError
        When the array is not three-dimensional, too long, or of a type that NIfTI has not.
    """
    code = _TYPES.get(dtype.newbyteorder("=").name)
    if len(shape) != 3 or code is None or max(shape) > _MAX_SIZE:
        raise AlgorithmError(
            f"An array of shape {tuple(shape)} and type {dtype} cannot be written as NIfTI; "
            f"three axes of at most {_MAX_SIZE} and one of {', '.join(_TYPES)} were expected.",
            "Write it as NRRD.",
        )
    matrix = np.diag([-1.0, -1.0, 1.0]) @ np.asarray(direction, float).reshape(3, 3)
    start = np.array([-origin[0], -origin[1], origin[2]])
    b, c, d, factor = _quaternion(matrix)
    rows = np.hstack([matrix * np.asarray(spacing, float), start[:, np.newaxis]])
    return _HEADER.pack(
        348, 0, 0, ord("r"), 0,
        3, shape[2], shape[1], shape[0], 1, 1, 1, 1,
        0.0, 0.0, 0.0, 0, code, dtype.itemsize * 8, 0,
        factor, *(float(value) for value in spacing), 0.0, 0.0, 0.0, 0.0,
        float(_DATA_OFFSET), 1.0, 0.0, 0, 0, _MM,
        0.0, 0.0, 0.0, 0.0, 0, 0, b"", b"", _SCANNER, _SCANNER,
        b, c, d, *start, *rows.ravel(),
        b"", b"n+1\0",
    ) + bytes(_DATA_OFFSET - 348)  # fmt: skip


def _quaternion(matrix: np.ndarray[Any, Any]) -> tuple[float, float, float, float]:
    """b, c, d of the unit quaternion of a rotation, and qfac: -1 where the third axis is mirrored."""
    factor = 1.0 if np.linalg.det(matrix) > 0 else -1.0
    r = matrix * np.array([1.0, 1.0, factor])
    a = math.sqrt(max(0.0, 1 + r[0, 0] + r[1, 1] + r[2, 2])) / 2
    if a > 0.1:
        b, c, d = (r[2, 1] - r[1, 2]) / (4 * a), (r[0, 2] - r[2, 0]) / (4 * a), (r[1, 0] - r[0, 1]) / (4 * a)
        return float(b), float(c), float(d), factor
    # a rotation by almost 180 degrees: the largest of b, c, d first, as the standard's own code does
    squares = [1 + r[0, 0] - r[1, 1] - r[2, 2], 1 + r[1, 1] - r[0, 0] - r[2, 2], 1 + r[2, 2] - r[0, 0] - r[1, 1]]
    i = int(np.argmax(squares))
    j, k = (i + 1) % 3, (i + 2) % 3
    largest = math.sqrt(squares[i]) / 2
    values = [0.0, 0.0, 0.0]
    values[i] = largest
    values[j] = (r[j, i] + r[i, j]) / (4 * largest)
    values[k] = (r[k, i] + r[i, k]) / (4 * largest)
    if (r[k, j] - r[j, k]) / (4 * largest) < 0:  # a is negative: turn the quaternion round
        values = [-value for value in values]
    return float(values[0]), float(values[1]), float(values[2]), factor
