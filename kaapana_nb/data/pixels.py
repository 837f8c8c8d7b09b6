"""Stored pixel values of frames: straight reads, freely licensed codecs, and pydicom for what is rare."""

from __future__ import annotations

import itertools
import os
import warnings
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from kaapana_nb.data import syntaxes
from kaapana_nb.data.codestream import frame_shape
from kaapana_nb.data.frames import Frame, Span, encapsulated_spans
from kaapana_nb.data.header import InstanceHeader
from kaapana_nb.errors import DicomError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom import FileDataset

MAX_FRAME_BYTES = 1 << 30
"""No frame of a CT, MR, US or slide level is larger; a header that says so is damaged."""
MAX_VOLUME_BYTES = 64 << 30
_MAX_EXPANSION = 5000
"""Most that a compressed frame may grow: constant frames reach a few thousand."""
_HEADER_ROOM = 64 << 20


def frame_dtype(header: InstanceHeader) -> np.dtype[Any]:
    """Element type of the stored values, native byte order.

    Raises
    ------
    DicomError
        When the header's bits are none that DICOM has.
    """
    bits, signed = header.bits_allocated, header.pixel_representation == 1
    if bits not in (1, 8, 16, 32, 64):
        raise DicomError(
            f"{header.file_name} has BitsAllocated {bits}; 1, 8, 16, 32 or 64 was expected.", "Fetch the series again."
        )
    if header.pixel_representation is None and bits in (32, 64):
        return np.dtype(f"f{bits // 8}")  # FloatPixelData and DoubleFloatPixelData (PS3.3 C.7.6.24) have none
    return np.dtype(f"{'i' if signed else 'u'}{max(1, bits // 8)}")


def frame_array_shape(header: InstanceHeader) -> tuple[int, ...]:
    """(rows, columns), or (rows, columns, samples) for colour.

    Raises
    ------
    DicomError
        When the size is impossible.
    """
    rows, columns, samples = header.rows or 0, header.columns or 0, header.samples_per_pixel or 1
    size = rows * columns * samples * max(8, header.bits_allocated or 0) // 8
    if rows < 1 or columns < 1 or samples not in (1, 3, 4) or size > MAX_FRAME_BYTES:
        raise DicomError(
            f"{header.file_name} has {rows} rows, {columns} columns and {samples} samples per pixel; "
            f"a frame of at most {MAX_FRAME_BYTES >> 20} MiB was expected.",
            "Fetch the series again.",
        )
    return (rows, columns) if samples == 1 else (rows, columns, samples)


def is_straight(header: InstanceHeader) -> bool:
    """Whether a frame's bytes in the file are the array's, up to byte order."""
    return (
        syntaxes.CODECS.get(header.transfer_syntax_uid or "") == "native"
        and header.transfer_syntax_uid != syntaxes.DEFLATED
        and header.pixel_offset is not None
        and header.pixel_length is not None
        and header.bits_allocated in (8, 16, 32)
        and not (header.photometric_interpretation or "").startswith("YBR")
        and not (header.planar_configuration == 1 and (header.samples_per_pixel or 1) > 1)
        and not (header.bits_allocated == 8 and header.transfer_syntax_uid == syntaxes.EXPLICIT_BIG)  # may be OW
    )


def read_frame_into(frame: Frame, out: NDArray[Any], spans: list[list[Span]] | None = None) -> None:
    """Read the stored values of one frame into `out` (rows, columns[, samples]), which is contiguous.

    Parameters
    ----------
    spans
        The fragments of the file's frames, where the caller knows them already.

    Raises
    ------
    DicomError
        When the pixels are truncated, damaged or in a syntax that is not decoded.
    """
    header = frame.header
    problem = syntaxes.syntax_problem(header.transfer_syntax_uid)
    if problem is not None:
        raise DicomError(f"{header.file_name}: {problem[0]}", problem[1])
    if is_straight(header):
        _read_straight(frame, out)
    elif syntaxes.CODECS[header.transfer_syntax_uid or ""] == "native":
        out[...] = _read_with_pydicom(frame, out.shape)
    else:
        out[...] = _read_compressed(frame, out.shape, out.dtype, spans)
    _fix_unused_bits(header, out)


def _read_straight(frame: Frame, out: NDArray[Any]) -> None:
    header, size = frame.header, out.nbytes
    start = (header.pixel_offset or 0) + frame.number * size
    fd = os.open(f"{header.directory}/{header.file_name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        view, done = out.reshape(-1).view(np.uint8).data, 0
        while done < size:
            count = os.preadv(fd, [view[done:]], start + done)
            if count == 0:
                raise _truncated(header, done, size)
            done += count
    finally:
        os.close(fd)
    if header.transfer_syntax_uid == syntaxes.EXPLICIT_BIG:
        out.byteswap(inplace=True)


def _truncated(header: InstanceHeader, there: int, size: int) -> DicomError:
    return DicomError(
        f"{header.file_name} is truncated: {there} of {size} bytes of a frame's pixels are there.",
        "Fetch the series again.",
    )


def _read_compressed(
    frame: Frame, shape: tuple[int, ...], dtype: np.dtype[Any], spans: list[list[Span]] | None
) -> NDArray[Any]:
    header = frame.header
    fd = os.open(f"{header.directory}/{header.file_name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        of_frames = encapsulated_spans(fd, header, frame.of) if spans is None else spans
        data = b"".join(os.pread(fd, length, position) for position, length in of_frames[frame.number])
    finally:
        os.close(fd)
    size = int(np.prod(shape)) * dtype.itemsize
    if size > _MAX_EXPANSION * max(len(data), 64):
        raise DicomError(
            f"{header.file_name} has {len(data)} bytes of compressed pixels for a frame of {size} bytes.",
            "Fetch the series again.",
        )
    try:
        array = _decode(data, header, shape, dtype)
    except DicomError:
        raise
    except Exception as error:
        raise DicomError(
            f"The compressed pixels of {header.file_name} cannot be decoded ({type(error).__name__}).",
            "Fetch the series again, or see the other problems: kaapana-nb batch check DIR",
        ) from error
    if array.shape != shape:
        raise DicomError(
            f"The compressed pixels of {header.file_name} have the shape {array.shape}; the header says {shape}.",
            "Fetch the series again.",
        )
    return array.view(dtype) if array.dtype.itemsize == dtype.itemsize else array.astype(dtype)


def _decode(data: bytes, header: InstanceHeader, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    import imagecodecs

    codec = syntaxes.CODECS[header.transfer_syntax_uid or ""]
    if codec == "rle":
        return _decode_rle(data, shape, dtype)
    announced = frame_shape(data)
    expected = (shape[0], shape[1], shape[2] if len(shape) == 3 else 1)
    if announced is None or announced[:3] != expected:
        raise DicomError(
            f"The compressed pixels of {header.file_name} announce {tuple(announced or ())[:3]} rows, columns and "
            f"samples; the header says {expected}.",
            "Fetch the series again.",
        )
    array: NDArray[Any]
    if codec == "jpeg-2000":
        array = imagecodecs.jpeg2k_decode(data)
    elif codec == "jpeg-ls":
        array = imagecodecs.jpegls_decode(data)
    elif len(shape) == 3 and announced.bits == 8 and not _is_lossless_jpeg(header):
        is_ybr = (header.photometric_interpretation or "").startswith("YBR")
        array = imagecodecs.jpeg8_decode(data, colorspace="YCBCR" if is_ybr else "RGB", outcolorspace="RGB")
    else:
        array = imagecodecs.jpeg_decode(data)
    return array


def _is_lossless_jpeg(header: InstanceHeader) -> bool:
    return (header.transfer_syntax_uid or "").endswith((".57", ".70"))


def _decode_rle(data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """One frame of RLE segments, one per byte of each sample, most significant first (PS3.5 annex G)."""
    import imagecodecs

    samples = shape[2] if len(shape) == 3 else 1
    pixels, segments = shape[0] * shape[1], samples * dtype.itemsize
    header = np.frombuffer(data, "<u4", 16)
    offsets = [int(offset) for offset in header[1 : segments + 1]] + [len(data)]
    if int(header[0]) != segments or any(a >= b for a, b in itertools.pairwise(offsets)):
        raise ValueError("another number of segments")
    planes = np.zeros((pixels, samples, dtype.itemsize), np.uint8)
    for segment in range(segments):
        plane = np.frombuffer(imagecodecs.packbits_decode(data[offsets[segment] : offsets[segment + 1]]), np.uint8)
        if plane.size < pixels:
            raise ValueError("a segment is too short")
        sample, byte = divmod(segment, dtype.itemsize)
        planes[:, sample, dtype.itemsize - 1 - byte] = plane[:pixels]
    return planes.reshape(-1).view(dtype.newbyteorder("<")).reshape(shape)


def _read_with_pydicom(frame: Frame, shape: tuple[int, ...]) -> NDArray[Any]:
    """Deflated, YBR, planar, 1-bit and floating-point pixels, by pydicom."""
    import pydicom
    from pydicom.pixels.utils import pixel_array

    header = frame.header
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if header.transfer_syntax_uid == syntaxes.DEFLATED:
                dataset = read_deflated(header, frame.of)
            else:
                dataset = pydicom.dcmread(header.path, force=True)
            array: NDArray[Any] = pixel_array(dataset, index=frame.number)
    except Exception as error:
        raise DicomError(
            f"The pixels of {header.file_name} cannot be read ({type(error).__name__}).",
            "Fetch the series again, or see the other problems: kaapana-nb batch check DIR",
        ) from error
    if array.shape != shape or (array.dtype.kind == "f") != (frame_dtype(header).kind == "f"):
        raise DicomError(
            f"The pixels of {header.file_name} have the shape {array.shape} and type {array.dtype}; "
            f"the header says {shape} and {frame_dtype(header)}.",
            "Fetch the series again.",
        )
    return array


def read_deflated(header: InstanceHeader, frames: int) -> FileDataset:
    """A deflated file as an explicit little endian dataset, inflated no further than its header says its pixels go."""
    from io import BytesIO

    from pydicom import FileDataset
    from pydicom.filereader import read_dataset, read_file_meta_info
    from pydicom.uid import ExplicitVRLittleEndian

    data = header.path.read_bytes()
    start = 144 + int.from_bytes(data[140:144], "little")
    frame = int(np.prod(frame_array_shape(header))) * 8 if header.rows else 0
    inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[start:], _HEADER_ROOM + max(1, frames) * frame)
    dataset = FileDataset(
        header.path, read_dataset(BytesIO(inflated), False, True), file_meta=read_file_meta_info(header.path)
    )
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def _fix_unused_bits(header: InstanceHeader, out: NDArray[Any]) -> None:
    """Clear or sign-extend bits above BitsStored, which may hold anything (PS3.5 section 8.1.1)."""
    stored, allocated = header.bits_stored or 0, header.bits_allocated or 0
    if not 0 < stored < allocated or out.dtype.kind not in "iu" or not out.size:
        return
    if out.dtype.kind == "u":
        if int(out.max()) >> stored:
            out &= out.dtype.type((1 << stored) - 1)
    elif int(out.max()) >> (stored - 1) or int(out.min()) < -(1 << (stored - 1)):
        out <<= out.dtype.type(allocated - stored)
        out >>= out.dtype.type(allocated - stored)
