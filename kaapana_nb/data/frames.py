"""The frames of a series: which file, where in it, and with what geometry each lies."""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from kaapana_nb.data.header import InstanceHeader, header_value
from kaapana_nb.errors import DicomError

if TYPE_CHECKING:
    from pydicom import Dataset

Span = tuple[int, int]
"""Position in the file and length, bytes."""

_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_MAX_PER_FRAME_BYTES = 256 << 20
_END_OF_IMAGE = (b"\xff\xd9", b"\xff\xd9\x00")  # JPEG and JPEG 2000 frames end so, padded to even length


class Frame(NamedTuple):
    """One slice: the header with this frame's own geometry and rescaling, its number from 0, and the file's frames."""

    header: InstanceHeader
    number: int
    of: int


def frames_of(headers: Sequence[InstanceHeader], *, always_grouped: bool = False) -> list[Frame]:
    """Every frame of the instances; enhanced objects get the geometry of their functional groups (PS3.3 C.7.6.16).

    Parameters
    ----------
    always_grouped
        Look for functional groups in objects of one frame, too.

    Raises
    ------
    DicomError
        When the functional groups cannot be read or do not describe every frame.
    """
    frames: list[Frame] = []
    for header in headers:
        count = max(1, header.number_of_frames or 1)
        if count == 1 and not (always_grouped or (header.number_of_frames == 1 and header.image_position is None)):
            frames.append(Frame(header, 0, 1))
            continue
        groups = _functional_groups(header, count)
        for number in range(count):
            changes = groups[number] if groups else {"instance_number": len(frames) + 1}
            frames.append(Frame(header._replace(number_of_frames=1, **changes), number, count))
    return frames


def encapsulated_spans(fd: int, header: InstanceHeader, count: int) -> list[list[Span]]:
    """Where the fragments of each of `count` frames lie in a compressed file (PS3.5 section A.4).

    Raises
    ------
    DicomError
        When the fragments end before they are complete, or do not divide into frames.
    """
    if header.pixel_offset is None:
        raise DicomError(f"{header.file_name} has no PixelData.", "Fetch the series again.")
    position = header.pixel_offset
    fragments: list[Span] = []
    table: bytes | None = None
    while True:
        head = os.pread(fd, 8, position)
        if len(head) == 8 and head[:4] == _END:
            break
        length = int.from_bytes(head[4:8], "little")
        if len(head) < 8 or head[:4] != _ITEM or position + 8 + length > header.file_size:
            raise DicomError(
                f"{header.file_name} is truncated: its compressed pixels end after {len(fragments)} whole fragments.",
                "Fetch the series again.",
            )
        if table is None:
            table = os.pread(fd, length, position + 8)
        else:
            fragments.append((position + 8, length))
        position += 8 + length
    return _by_frame(fd, header, count, fragments, table or b"")


def _by_frame(fd: int, header: InstanceHeader, count: int, fragments: list[Span], table: bytes) -> list[list[Span]]:
    if count == 1 and fragments:
        return [fragments]
    if len(fragments) == count:
        return [[fragment] for fragment in fragments]
    starts: list[int] = []
    if len(table) == 4 * count and fragments:
        base = fragments[0][0] - 8
        starts = [base + offset + 8 for offset in struct.unpack(f"<{count}I", table)]
    frames: list[list[Span]] = []
    for fragment in fragments:
        position, length = fragment
        new = position in starts if starts else not frames or _ends_image(fd, frames[-1][-1])
        if new or not frames:
            frames.append([])
        frames[-1].append((position, length))
    if len(frames) != count:
        raise DicomError(
            f"{header.file_name} has {len(fragments)} compressed fragments, which make {len(frames)} frames; "
            f"NumberOfFrames is {count}.",
            "Fetch the series again.",
        )
    return frames


def _ends_image(fd: int, span: Span) -> bool:
    position, length = span
    return os.pread(fd, min(3, length), position + max(0, length - 3)).endswith(_END_OF_IMAGE)


def _functional_groups(header: InstanceHeader, count: int) -> list[dict[str, Any]] | None:
    """What each frame of an enhanced object says of itself; ``None`` for objects without functional groups."""
    import pydicom

    if header.pixel_offset is not None and header.pixel_offset > _MAX_PER_FRAME_BYTES:
        raise DicomError(
            f"{header.file_name} has {header.pixel_offset >> 20} MiB before its pixels.", "Fetch the series again."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(
                header.path,
                stop_before_pixels=True,
                force=True,
                specific_tags=["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"],
            )
            per_frame = dataset.get("PerFrameFunctionalGroupsSequence")
            if not per_frame:
                return None
            shared = dataset.get("SharedFunctionalGroupsSequence")
            if len(per_frame) != count:
                raise DicomError(
                    f"{header.file_name} describes {len(per_frame)} frames; NumberOfFrames is {count}.",
                    "Fetch the series again.",
                )
            common = _group(shared[0]) if shared else {}
            return [{**common, **_group(item), "instance_number": n + 1} for n, item in enumerate(per_frame)]
    except DicomError:
        raise
    except Exception as error:
        raise DicomError(
            f"The geometry of the frames of {header.file_name} cannot be read ({type(error).__name__}).",
            "Fetch the series again.",
        ) from error


_MACROS = (
    ("PlanePositionSequence", "ImagePositionPatient", "image_position"),
    ("PlaneOrientationSequence", "ImageOrientationPatient", "image_orientation"),
    ("PixelMeasuresSequence", "PixelSpacing", "pixel_spacing"),
    ("PixelMeasuresSequence", "SliceThickness", "slice_thickness_mm"),
    ("PixelValueTransformationSequence", "RescaleSlope", "rescale_slope"),
    ("PixelValueTransformationSequence", "RescaleIntercept", "rescale_intercept"),
)


def _group(item: Dataset) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for sequence, keyword, attribute in _MACROS:
        macro = item.get(sequence)
        if macro and keyword in macro[0]:
            value = macro[0].get(keyword)
            values[attribute] = header_value(attribute, list(value) if hasattr(value, "__iter__") else value)
    return values
