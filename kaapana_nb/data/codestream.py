"""What a compressed frame says of its own size, read before a decoder reserves memory for it."""

from __future__ import annotations

from typing import NamedTuple

_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_NO_FRAME = frozenset({0xC4, 0xC8, 0xCC})  # tables and reserved codes among the start-of-frame markers
_JPEG_LS_FRAME = 0xF7
_SOI = b"\xff\xd8"
_J2K = b"\xff\x4f\xff\x51"  # start of codestream, then SIZ
_MAX_MARKERS = 4096


class FrameShape(NamedTuple):
    """Rows, columns, samples per pixel and bits per sample."""

    rows: int
    columns: int
    samples: int
    bits: int


def frame_shape(data: bytes) -> FrameShape | None:
    """The shape that a JPEG, JPEG-LS or JPEG 2000 codestream announces; ``None`` when it is none of these.

    Source: ITU-T T.81 B.2.2, T.87 C.2.2 and T.800 A.5.1.
    """
    if data[:2] == _SOI:
        return _jpeg_shape(data)
    at = data.find(_J2K, 0, 4096)
    return _jpeg_2000_shape(data, at) if at >= 0 else None


def _jpeg_shape(data: bytes) -> FrameShape | None:
    position = 2
    for _ in range(_MAX_MARKERS):
        while position < len(data) and data[position] == 0xFF and data[position + 1 : position + 2] == b"\xff":
            position += 1
        if position + 4 > len(data) or data[position] != 0xFF:
            return None
        marker = data[position + 1]
        if marker in _STANDALONE:
            position += 2
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == _JPEG_LS_FRAME or (0xC0 <= marker <= 0xCF and marker not in _NO_FRAME):
            body = data[position + 4 : position + 10]
            if len(body) < 6:
                return None
            return FrameShape(int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big"), body[5], body[0])
        if length < 2:
            return None
        position += 2 + length
    return None


def _jpeg_2000_shape(data: bytes, at: int) -> FrameShape | None:
    size = data[at + 4 : at + 4 + 41]
    if len(size) < 41:
        return None
    right, bottom, left, top = (int.from_bytes(size[4 + 4 * n : 8 + 4 * n], "big") for n in range(4))
    samples = int.from_bytes(size[36:38], "big")
    return FrameShape(bottom - top, right - left, samples, (size[38] & 0x7F) + 1)
