"""Writing NRRD (http://teem.sourceforge.net/nrrd/format.html), fast and the same bytes each time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from isal import isal_zlib

from kaapana_nb.errors import AlgorithmError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TYPES = {
    "int8": "signed char", "uint8": "unsigned char", "int16": "short", "uint16": "unsigned short", "int32": "int",
    "uint32": "unsigned int", "int64": "longlong", "uint64": "ulonglong", "float32": "float", "float64": "double",
}  # fmt: skip
_CHUNK = 1 << 20
_LEVEL = 1  # ISA-L's levels 0 to 3 differ by a few percent in size
_GZIP_WINDOW = 31  # a gzip stream whose header has no name and no time


def write_nrrd(
    file: BinaryIO,
    array: NDArray[Any],
    *,
    spacing: Sequence[float],
    origin: Sequence[float],
    direction: Sequence[float],
    vector: bool = False,
    compress: bool = True,
) -> None:
    """Write one array with its geometry as NRRD with attached header.

    Parameters
    ----------
    array
        Axes in reverse order of the geometry's, (slices, rows, columns) in 3D; samples last if `vector`.
    spacing, origin
        mm per axis (x, y, z) and LPS position of the first element, mm.
    direction
        Matrix row by row; its columns are the unit vectors of the axes.
    compress
        As one gzip stream, without name or time in its header.

    Raises
    ------
    AlgorithmError
        When the element type has no NRRD name.
    """
    type_name = _TYPES.get(array.dtype.newbyteorder("=").name)
    if type_name is None:
        raise AlgorithmError(
            f"An image of element type {array.dtype} cannot be written as NRRD; "
            f"one of {', '.join(_TYPES)} was expected.",
            "Cast the result, e.g. sitk.Cast(image, sitk.sitkFloat32).",
        )
    dimension = array.ndim - (1 if vector else 0)
    sizes = array.shape[::-1]
    if vector:
        sizes = (array.shape[-1], *array.shape[-2::-1])
    axes = []
    for axis in range(dimension):
        column = (direction[row * dimension + axis] * spacing[axis] for row in range(dimension))
        axes.append(f"({','.join(_text(value) for value in column)})")
    lines = [
        "NRRD0004",
        f"type: {type_name}",
        f"dimension: {array.ndim}",
        "space: left-posterior-superior" if dimension == 3 else f"space dimension: {dimension}",
        f"sizes: {' '.join(map(str, sizes))}",
        f"space directions: {' '.join((['none'] if vector else []) + axes)}",
        f"kinds: {' '.join((['vector'] if vector else []) + ['domain'] * dimension)}",
        "endian: little",
        f"encoding: {'gzip' if compress else 'raw'}",
        f"space origin: ({','.join(_text(value) for value in origin)})",
    ]
    file.write(("\n".join(lines) + "\n\n").encode("ascii"))
    data = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data
    if not compress:
        file.write(data)
        return
    stream = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _GZIP_WINDOW)
    for start in range(0, len(data), _CHUNK):
        file.write(stream.compress(data[start : start + _CHUNK]))
    file.write(stream.flush())


def _text(value: float) -> str:
    """Shortest decimal text that reads back as the same double; no negative zero."""
    return repr(float(value) + 0.0)
