"""The fast header reader: explicit and implicit VR little endian (DICOM PS3.5 section 7.1), from a file's first bytes.

It answers only where it is certain. Anything unusual (another transfer syntax, an unknown or unexpected VR,
tags out of order, text in an unusual character set) gives ``None``, and the caller asks pydicom.

The files of a series differ in a few values and hardly in layout. `HeaderWalker` remembers the layouts it
has met as structures to unpack: every tag, VR and length of the next file is compared with the remembered
ones, except the lengths of elements that were seen to vary, which are read. So a match proves the same as a
walk from element to element, in a fraction of the time.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from kaapana_nb.data.header import TAGS, InstanceHeader, header_value

HEAD_BYTES = 8192
"""First read of a file: holds the header of nearly every single-frame CT or MR instance."""

_IMPLICIT_LITTLE = "1.2.840.10008.1.2"
_NATIVE = (_IMPLICIT_LITTLE, "1.2.840.10008.1.2.1")
_ENCAPSULATED = ("1.2.840.10008.1.2.4.", "1.2.840.10008.1.2.5")  # JPEG family, RLE: explicit little endian too
_PREAMBLE = 132
_IMPLICIT_FIXED, _SHORT_FIXED, _LONG_FIXED = 4, 6, 8  # bytes of an element before its length
_TRANSFER_SYNTAX = 0x00020010
_FIRST_DATASET_TAG = 0x00030000
_PIXEL_DATA = 0x7FE00010
_FIRST_PIXEL_TAG = 0x7FE00001
_CHARACTER_SET = 0x00080005
_CHARACTER_SET_NAME = "character_set"
_DECIDING = frozenset({_TRANSFER_SYNTAX, _CHARACTER_SET})
"""Elements whose value decides how others are read: a layout has one value of each."""
_SHORT = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_UNDEFINED = 0xFFFFFFFF
_MAX_DEPTH = 16
_MAX_ELEMENTS = 4096
_MAX_LAYOUTS = 16
_MAX_VARIABLE = 14
"""Elements of varying length in one layout: more come from another series, which gets a layout of its own."""
_MAX_MEMO = 8192

_VRS: dict[int, bytes] = {
    0x00020010: b"UI", 0x00080008: b"CS", 0x00080016: b"UI", 0x00080018: b"UI", 0x00080060: b"CS",
    0x0008103E: b"LO", 0x00100020: b"LO", 0x00180015: b"CS", 0x00180050: b"DS", 0x00181120: b"DS",
    0x0020000D: b"UI", 0x0020000E: b"UI", 0x00200013: b"IS", 0x00200032: b"DS", 0x00200037: b"DS",
    0x00280002: b"US", 0x00280004: b"CS", 0x00280006: b"US", 0x00280008: b"IS", 0x00280010: b"US",
    0x00280011: b"US", 0x00280030: b"DS", 0x00280100: b"US", 0x00280101: b"US", 0x00280103: b"US",
    0x00281052: b"DS", 0x00281053: b"DS",
}  # fmt: skip
_WANTED = {tag: (attribute, _VRS[tag]) for tag, attribute in TAGS.items()} | {
    _CHARACTER_SET: (_CHARACTER_SET_NAME, b"CS")
}
_CODECS = {"": "ascii", "ISO_IR 6": "ascii", "ISO_IR 100": "latin-1", "ISO_IR 192": "utf-8"}
_UNIQUE = frozenset({"sop_instance_uid", "image_position"})  # differ in every file: not worth remembering
_TEXT = frozenset({"series_description", "patient_id"})  # LO: the only ones that SpecificCharacterSet concerns


class _Doubt(Exception):  # noqa: N818 - a signal between functions of this module, not an error
    """Not certain: let pydicom read this file."""


class _Element(NamedTuple):
    start: int
    tag: int
    head: bytes
    """The 8 or 12 bytes before the value: tag, VR (explicit only), length."""
    fixed: int
    """Bytes of the head before the length."""
    length: int
    """Bytes of the value; -1 for a sequence of undefined length."""


@dataclass(slots=True)
class _Segment:
    """A run of elements of fixed length, up to the head of one of variable length (or of PixelData)."""

    parts: struct.Struct
    """Heads and wanted values, in order."""
    last: tuple[bytes, ...]
    """The parts of the last file: in a series most segments are the same in every file."""
    fixed: tuple[int, ...]
    """Which parts every file of the layout has: the heads, and the values that decide how others are read."""
    values: tuple[tuple[int, str], ...]
    """The other parts, and the attribute that each gives."""
    length_at: int
    long: bool
    variable: str | None
    """Attribute that the variable element gives, if any."""


@dataclass(slots=True)
class _Layout:
    shapes: tuple[bytes, ...]
    """Head of each element without its length."""
    lengths: list[int]
    variable: set[int]
    segments: list[_Segment]
    fields: list[Any]
    """Values of the last file in the order of `InstanceHeader`'s fields."""
    character_set: bytes
    native: bool


class HeaderWalker:
    """Reads header rows from the first bytes of files. Not for use by two threads at once.

    Parameters
    ----------
    remember
        Whether to remember layouts, which pays from the second file of a series on.
    """

    def __init__(self, *, remember: bool = True) -> None:
        self._remember = remember
        self._layouts: list[_Layout] = []
        self._memo: dict[tuple[str, bytes, bytes], Any] = {}

    def read(self, head: bytes, directory: Path, file_name: str, file_size: int) -> InstanceHeader | None:
        """The header row, or ``None`` where pydicom has to be asked.

        Parameters
        ----------
        head
            The first bytes of the file, at least up to PixelData.
        """
        try:
            for number, layout in enumerate(self._layouts):
                if self._matches(layout, head):
                    if number:
                        self._layouts.insert(0, self._layouts.pop(number))
                    fields = layout.fields
                    fields[_DIRECTORY], fields[_FILE_NAME], fields[_FILE_SIZE] = directory, file_name, file_size
                    return InstanceHeader._make(fields)
            elements = _walk(head, file_size)
            raw = _values(head, elements)
            character_set = raw.pop(_CHARACTER_SET_NAME, b"")
            values = {name: self._value(name, data, character_set) for name, data in raw.items()}
            syntax = values.get("transfer_syntax_uid") or ""
            native = syntax in _NATIVE
            implicit = elements[-1].fixed == _IMPLICIT_FIXED
            if implicit != (syntax == _IMPLICIT_LITTLE) or not (native or syntax.startswith(_ENCAPSULATED)):
                raise _Doubt
            if elements[-1].tag == _PIXEL_DATA:
                values["pixel_offset"] = elements[-1].start + len(elements[-1].head)
                values["pixel_length"] = _pixel_length(elements[-1].length, native)
            header = InstanceHeader(directory=directory, file_name=file_name, file_size=file_size, **values)
            self._learn(head, elements, header, character_set, native)
            return header
        except _Doubt:
            return None

    def _learn(
        self, head: bytes, elements: list[_Element], header: InstanceHeader, character_set: bytes, native: bool
    ) -> None:
        if not self._remember or elements[-1].tag != _PIXEL_DATA or any(element.length < 0 for element in elements):
            return
        shapes = tuple(element.head[: element.fixed] for element in elements)
        lengths = [element.length for element in elements]
        deciding = {number for number, element in enumerate(elements) if element.tag in _DECIDING}
        for layout in self._layouts:
            if layout.shapes == shapes and layout.character_set == character_set and layout.native == native:
                changed = {i for i, (old, new) in enumerate(zip(layout.lengths, lengths, strict=True)) if old != new}
                if len(layout.variable | changed) <= _MAX_VARIABLE and not changed & deciding:
                    layout.variable |= changed
                    layout.segments = _segments(head, elements, layout.variable)
                    layout.fields = list(header)
                    return
        layout = _Layout(
            shapes=shapes,
            lengths=lengths,
            variable=set(),
            segments=_segments(head, elements, set()),
            fields=list(header),
            character_set=character_set,
            native=native,
        )
        self._layouts.insert(0, layout)
        del self._layouts[_MAX_LAYOUTS:]

    def _matches(self, layout: _Layout, head: bytes) -> bool:
        try:
            return self._match(layout, head)
        except _Doubt:
            self._layouts.remove(layout)  # some of its fields may be this file's and others the last one's
            raise

    def _match(self, layout: _Layout, head: bytes) -> bool:
        """Whether a header has this layout; if so the layout's fields are the header's."""
        if head[128:_PREAMBLE] != b"DICM":
            return False
        position, size, length = _PREAMBLE, len(head), 0
        fields = layout.fields
        for segment in layout.segments:
            length_at = position + segment.length_at
            if length_at + 4 > size:
                return False
            parts = segment.parts.unpack_from(head, position)
            if parts != segment.last:
                last = segment.last
                for place in segment.fixed:
                    if parts[place] != last[place]:
                        return False
                for place, attribute in segment.values:
                    if parts[place] != last[place]:
                        fields[_FIELD[attribute]] = self._value(attribute, parts[place], layout.character_set)
                segment.last = parts
            if segment.long:
                length = int.from_bytes(head[length_at : length_at + 4], "little")
                position = length_at + 4
            else:
                length = head[length_at] | head[length_at + 1] << 8
                position = length_at + 2
            attribute_of_variable = segment.variable
            if attribute_of_variable is not None:
                if position + length > size:
                    return False
                data = head[position : position + length]
                fields[_FIELD[attribute_of_variable]] = self._value(attribute_of_variable, data, layout.character_set)
            position += length
        # the last segment ends at PixelData, whose length has just been added
        fields[_PIXEL_OFFSET], fields[_PIXEL_LENGTH] = position - length, _pixel_length(length, layout.native)
        return True

    def _value(self, attribute: str, data: bytes, character_set: bytes) -> Any:
        """A raw value converted; those that files share are remembered."""
        if attribute in _UNIQUE:
            return _convert(attribute, data, character_set)
        key = (attribute, data, character_set)
        if key not in self._memo:
            if len(self._memo) >= _MAX_MEMO:
                self._memo.clear()
            self._memo[key] = _convert(attribute, data, character_set)
        return self._memo[key]


def _pixel_length(length: int, native: bool) -> int | None:
    """The length of PixelData; ``None`` for encapsulated pixels, whose length is undefined (PS3.5 section A.4)."""
    if native == (length == _UNDEFINED):
        raise _Doubt
    return length if native else None


def _convert(attribute: str, data: bytes, character_set: bytes) -> Any:
    if _VR_OF[attribute] == b"US":
        if len(data) != 2:
            raise _Doubt
        return int.from_bytes(data, "little")
    try:
        text = data.decode(_codec(character_set) if attribute in _TEXT else "ascii")
    except UnicodeDecodeError:
        raise _Doubt from None
    if "\x1b" in text:
        raise _Doubt
    if "\\" in text and attribute in _SINGLE_TEXTS:
        return None  # several values where one was expected
    return header_value(attribute, text)


_VR_OF = dict(_WANTED.values())
_FIELD = {name: place for place, name in enumerate(InstanceHeader._fields)}
_DIRECTORY, _FILE_NAME, _FILE_SIZE = _FIELD["directory"], _FIELD["file_name"], _FIELD["file_size"]
_PIXEL_OFFSET, _PIXEL_LENGTH = _FIELD["pixel_offset"], _FIELD["pixel_length"]
_SINGLE_TEXTS = frozenset(
    attribute for attribute, vr in _WANTED.values() if vr in (b"UI", b"CS", b"LO") and attribute != "image_type"
)


def _codec(character_set: bytes) -> str:
    name = character_set.strip(b" \0")
    codec = _CODECS.get(name.decode("latin-1"))
    if codec is None:
        raise _Doubt
    return codec


def _walk(head: bytes, file_size: int) -> list[_Element]:
    """Elements up to PixelData (whose value is not looked at) or to the end of a file that `head` holds whole."""
    if head[128:_PREAMBLE] != b"DICM":
        raise _Doubt
    elements: list[_Element] = []
    position, previous, implicit = _PREAMBLE, -1, False
    while True:
        if position == file_size == len(head) and elements:
            return elements
        if not implicit and previous < _FIRST_DATASET_TAG and head[position : position + 2] != b"\2\0":
            implicit = _says_implicit(head, elements)
        element, position = _next_element(head, position, implicit)
        if element.tag <= previous or len(elements) >= _MAX_ELEMENTS:
            raise _Doubt
        previous = element.tag
        wanted = _WANTED.get(element.tag)
        if wanted is not None and element.fixed != _IMPLICIT_FIXED and element.head[4:6] != wanted[1]:
            raise _Doubt
        elements.append(element)
        if element.tag == _PIXEL_DATA:
            return elements
        if element.tag >= _FIRST_PIXEL_TAG:
            raise _Doubt
        if element.length == -1:
            position = _skip_sequence(head, position, implicit, 0)
        if position > len(head):
            raise _Doubt


def _says_implicit(head: bytes, meta: list[_Element]) -> bool:
    """Whether the file meta information names implicit VR."""
    for element in meta:
        if element.tag == _TRANSFER_SYNTAX:
            start = element.start + len(element.head)
            return head[start : start + element.length].rstrip(b"\0 ") == _IMPLICIT_LITTLE.encode()
    raise _Doubt


def _next_element(head: bytes, position: int, implicit: bool) -> tuple[_Element, int]:
    """The element at `position` and where the next one begins."""
    if position + 8 > len(head):
        raise _Doubt
    group, number = head[position] | head[position + 1] << 8, head[position + 2] | head[position + 3] << 8
    tag = group << 16 | number
    vr = head[position + 4 : position + 6]
    if implicit:
        if vr in _SHORT or vr in _LONG:
            raise _Doubt  # a length that looks like a VR, or a VR where none should be
        fixed, length, start = (
            _IMPLICIT_FIXED,
            int.from_bytes(head[position + 4 : position + 8], "little"),
            position + 8,
        )
    elif vr in _SHORT:
        fixed, length, start = _SHORT_FIXED, head[position + 6] | head[position + 7] << 8, position + 8
    elif vr in _LONG and position + 12 <= len(head):
        fixed, length, start = _LONG_FIXED, int.from_bytes(head[position + 8 : position + 12], "little"), position + 12
    else:
        raise _Doubt
    element_head = head[position:start]
    if tag == _PIXEL_DATA:
        if not implicit and vr not in (b"OW", b"OB"):
            raise _Doubt
        return _Element(position, tag, element_head, fixed, length), start
    if length == _UNDEFINED:
        if not implicit and vr != b"SQ":
            raise _Doubt
        return _Element(position, tag, element_head, fixed, -1), start
    return _Element(position, tag, element_head, fixed, length), start + length


def _skip_sequence(head: bytes, position: int, implicit: bool, depth: int) -> int:
    """Where a sequence of undefined length ends (PS3.5 section 7.5)."""
    if depth > _MAX_DEPTH:
        raise _Doubt
    while True:
        if position + 8 > len(head):
            raise _Doubt
        tag, length = head[position : position + 4], int.from_bytes(head[position + 4 : position + 8], "little")
        position += 8
        if tag == b"\xfe\xff\xdd\xe0":
            return position
        if tag != b"\xfe\xff\x00\xe0":
            raise _Doubt
        if length != _UNDEFINED:
            position += length
            continue
        while head[position : position + 4] != b"\xfe\xff\x0d\xe0":
            element, position = _next_element(head, position, implicit)
            if element.length == -1:
                position = _skip_sequence(head, position, implicit, depth + 1)
        position += 8


def _values(head: bytes, elements: list[_Element]) -> dict[str, bytes]:
    values: dict[str, bytes] = {}
    for element in elements:
        if element.tag in _WANTED:
            start = element.start + len(element.head)
            values[_WANTED[element.tag][0]] = head[start : start + element.length]
    return values


def _segments(head: bytes, elements: list[_Element], variable: set[int]) -> list[_Segment]:
    """The segments of a layout, with `head`, whose elements these are, as the last file."""
    segments: list[_Segment] = []
    start = _PREAMBLE
    form, count = "<", 0
    fixed: list[int] = []
    values: list[tuple[int, str]] = []
    for number, element in enumerate(elements):
        wanted = _WANTED.get(element.tag)
        if number not in variable and element.tag != _PIXEL_DATA:
            form += f"{len(element.head)}s{element.length}{'s' if wanted else 'x'}"
            fixed.append(count)
            count += 1
            if wanted:
                if element.tag in _DECIDING:
                    fixed.append(count)
                else:
                    values.append((count, wanted[0]))
                count += 1
            continue
        parts = struct.Struct(f"{form}{element.fixed}s")
        segments.append(
            _Segment(
                parts=parts,
                last=parts.unpack_from(head, start),
                fixed=(*fixed, count),
                values=tuple(values),
                length_at=parts.size,
                long=element.fixed != _SHORT_FIXED,
                variable=wanted[0] if wanted else None,
            )
        )
        start = element.start + len(element.head) + max(0, element.length)
        form, count, fixed, values = "<", 0, [], []
    return segments
