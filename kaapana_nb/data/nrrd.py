"""Writing NRRD (http://teem.sourceforge.net/nrrd/format.html), fast and the same bytes each time."""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, BinaryIO, Self

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
_MAX_THREADS = 4
_GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # deflate; no name, no time, no system (RFC 1952)
_LAST_BLOCK = b"\x03\0"  # an empty final block


class VoxelStream:
    """Writes arrays one after another as little endian bytes, as one gzip stream if asked.

    A gzip stream is deflated in chunks of fixed size, by as many threads as there are processors; its
    bytes do not depend on how many. Use it as a context manager: the stream ends with the block.
    """

    def __init__(self, file: BinaryIO, *, compress: bool) -> None:
        self._file = file
        self._pool = ThreadPoolExecutor(min(_MAX_THREADS, len(os.sched_getaffinity(0)))) if compress else None
        self._pending: deque[Future[bytes]] = deque()
        self._rest = b""
        self._checksum = self._size = 0
        if compress:
            file.write(_GZIP_HEADER)

    def write(self, array: NDArray[Any]) -> None:
        """Write the elements of `array` in C order."""
        plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        self.write_bytes(plain.reshape(-1).view(np.uint8).data)

    def write_bytes(self, data: bytes | memoryview) -> None:
        """Write bytes as they are."""
        if self._pool is None:
            self._file.write(data)
            return
        self._checksum = isal_zlib.crc32(data, self._checksum)
        self._size += len(data)
        start = 0
        if self._rest:
            start = min(_CHUNK - len(self._rest), len(data))
            self._rest += bytes(data[:start])
            if len(self._rest) == _CHUNK:
                self._submit(self._rest)
                self._rest = b""
        while len(data) - start >= _CHUNK:
            self._submit(data[start : start + _CHUNK])
            start += _CHUNK
        self._rest += bytes(data[start:])

    def _submit(self, chunk: bytes | memoryview) -> None:
        if self._pool is not None:
            self._pending.append(self._pool.submit(_deflate, chunk))
        while len(self._pending) > 2 * _MAX_THREADS:
            self._file.write(self._pending.popleft().result())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if self._pool is None:
            return
        if kind is None:
            if self._rest:
                self._submit(self._rest)
            while self._pending:
                self._file.write(self._pending.popleft().result())
            self._file.write(_LAST_BLOCK + struct.pack("<II", self._checksum, self._size & 0xFFFFFFFF))
        self._pool.shutdown(cancel_futures=True)


def _deflate(chunk: bytes | memoryview) -> bytes:
    """One chunk as deflate blocks that end at a byte, so that more can follow (RFC 1951)."""
    deflate = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, -15)
    return bytes(deflate.compress(chunk) + deflate.flush(isal_zlib.Z_SYNC_FLUSH))


def nrrd_header(
    shape: Sequence[int],
    dtype: np.dtype[Any],
    *,
    spacing: Sequence[float],
    origin: Sequence[float],
    direction: Sequence[float],
    vector: bool = False,
    compress: bool = True,
) -> bytes:
    """The header of a NRRD file whose voxels follow it.

    Parameters
    ----------
    shape
        Of the array: axes in reverse order of the geometry's, (slices, rows, columns) in 3D; samples last
        if `vector`.
    spacing, origin
        mm per axis (x, y, z) and LPS position of the first element, mm.
    direction
        Matrix row by row; its columns are the unit vectors of the axes.
    compress
        Whether the voxels are one gzip stream.

    Raises
    ------
    AlgorithmError
        When the element type has no NRRD name.
    """
    type_name = _TYPES.get(dtype.newbyteorder("=").name)
    if type_name is None:
        raise AlgorithmError(
            f"An image of element type {dtype} cannot be written as NRRD; one of {', '.join(_TYPES)} was expected.",
            "Cast the result, e.g. sitk.Cast(image, sitk.sitkFloat32).",
        )
    dimension = len(shape) - (1 if vector else 0)
    sizes = (shape[-1], *shape[-2::-1]) if vector else tuple(shape[::-1])
    axes = []
    for axis in range(dimension):
        column = (direction[row * dimension + axis] * spacing[axis] for row in range(dimension))
        axes.append(f"({','.join(_text(value) for value in column)})")
    lines = [
        "NRRD0004",
        f"type: {type_name}",
        f"dimension: {len(shape)}",
        "space: left-posterior-superior" if dimension == 3 else f"space dimension: {dimension}",
        f"sizes: {' '.join(map(str, sizes))}",
        f"space directions: {' '.join((['none'] if vector else []) + axes)}",
        f"kinds: {' '.join((['vector'] if vector else []) + ['domain'] * dimension)}",
        "endian: little",
        f"encoding: {'gzip' if compress else 'raw'}",
        f"space origin: ({','.join(_text(value) for value in origin)})",
    ]
    return ("\n".join(lines) + "\n\n").encode("ascii")


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
    """Write one array with its geometry as NRRD with attached header (see `nrrd_header`)."""
    file.write(
        nrrd_header(
            array.shape,
            array.dtype,
            spacing=spacing,
            origin=origin,
            direction=direction,
            vector=vector,
            compress=compress,
        )
    )
    with VoxelStream(file, compress=compress) as stream:
        stream.write(array)


def _text(value: float) -> str:
    """Shortest decimal text that reads back as the same double; no negative zero."""
    return repr(float(value) + 0.0)
