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
from collections.abc import Iterable
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


class _Segment(NamedTuple):
    """A run of elements of fixed length, up to the head of one of variable length (or of PixelData)."""

    heads: struct.Struct
    expected: tuple[bytes, ...]
    values: struct.Struct
    attributes: tuple[str, ...]
    texts: tuple[str, ...]
    """Those of the attributes that SpecificCharacterSet concerns."""
    length_at: int
    long: bool
    last: str | None
    """Attribute that the variable element gives, if any."""
    memo: dict[tuple[bytes, ...], dict[str, Any]]
    """Converted values by raw values: most are the same in every file of a series."""


@dataclass(slots=True)
class _Layout:
    shapes: tuple[bytes, ...]
    """Head of each element without its length."""
    lengths: list[int]
    variable: set[int]
    elements: list[_Element]
    segments: list[_Segment]


class HeaderWalker:
    """Reads header rows from the first bytes of files; remembers layouts. Not for use by two threads at once."""

    def __init__(self) -> None:
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
                raw = self._match(layout, head)
                if raw is not None:
                    if number:
                        self._layouts.insert(0, self._layouts.pop(number))
                    return self._row(raw, _is_implicit(layout.elements), directory, file_name, file_size)
            elements = _walk(head, file_size)
            self._learn(elements)
            values = _values(head, elements)
            self._convert_all(values, [name for name, data in values.items() if isinstance(data, bytes)])
            return self._row(values, _is_implicit(elements), directory, file_name, file_size)
        except _Doubt:
            return None

    def _learn(self, elements: list[_Element]) -> None:
        if elements[-1].tag != _PIXEL_DATA or any(element.length < 0 for element in elements):
            return
        shapes = tuple(element.head[: element.fixed] for element in elements)
        lengths = [element.length for element in elements]
        for layout in self._layouts:
            if layout.shapes == shapes:
                changed = {i for i, (old, new) in enumerate(zip(layout.lengths, lengths, strict=True)) if old != new}
                if len(layout.variable | changed) <= _MAX_VARIABLE:
                    layout.variable |= changed
                    layout.segments = _segments(layout.elements, layout.variable)
                    return
        layout = _Layout(
            shapes=shapes, lengths=lengths, variable=set(), elements=elements, segments=_segments(elements, set())
        )
        self._layouts.insert(0, layout)
        del self._layouts[_MAX_LAYOUTS:]

    def _match(self, layout: _Layout, head: bytes) -> dict[str, Any] | None:
        """The values of a header of this layout; ``None`` when it has another."""
        if head[128:_PREAMBLE] != b"DICM":
            return None
        result: dict[str, Any] = {}
        pending: list[str] = []
        position, size, length = _PREAMBLE, len(head), 0
        for heads, expected, values, attributes, texts, length_at, long, last, memo in layout.segments:
            length_at += position
            if length_at + 4 > size or heads.unpack_from(head, position) != expected:
                return None
            if attributes:
                raw = values.unpack_from(head, position)
                converted = memo.get(raw)
                if converted is None:
                    converted = dict(zip(attributes, raw, strict=True))
                    self._convert_all(converted, [name for name in attributes if name not in _TEXT])
                    if len(memo) >= _MAX_MEMO:
                        memo.clear()
                    memo[raw] = converted
                result.update(converted)
                if texts:
                    pending += texts
            if long:
                length = int.from_bytes(head[length_at : length_at + 4], "little")
                position = length_at + 4
            else:
                length = head[length_at] | head[length_at + 1] << 8
                position = length_at + 2
            if last is not None:
                if position + length > size:
                    return None
                result[last] = head[position : position + length]
                pending.append(last)
            position += length
        # the last segment ends at PixelData, whose length has just been added
        result["pixel_offset"], result["pixel_length"] = position - length, length
        self._convert_all(result, pending)
        return result

    def _convert_all(self, values: dict[str, Any], attributes: Iterable[str]) -> None:
        """Convert those of `attributes` that are still raw, in place."""
        character_set = values.get(_CHARACTER_SET_NAME, b"")
        for attribute in attributes:
            data = values[attribute]
            if attribute == _CHARACTER_SET_NAME:
                continue
            if attribute in _UNIQUE:
                values[attribute] = _convert(attribute, data, character_set)
                continue
            key = (attribute, data, character_set)
            if key not in self._memo:
                if len(self._memo) >= _MAX_MEMO:
                    self._memo.clear()
                self._memo[key] = _convert(attribute, data, character_set)
            values[attribute] = self._memo[key]

    def _row(
        self, values: dict[str, Any], implicit: bool, directory: Path, file_name: str, file_size: int
    ) -> InstanceHeader:
        values.pop(_CHARACTER_SET_NAME, None)
        syntax = values.get("transfer_syntax_uid") or ""
        native = syntax in _NATIVE
        if implicit != (syntax == _IMPLICIT_LITTLE) or not (native or syntax.startswith(_ENCAPSULATED)):
            raise _Doubt
        if "pixel_offset" in values:
            if native == (values["pixel_length"] == _UNDEFINED):
                raise _Doubt
            if not native:
                values["pixel_length"] = None
        return InstanceHeader(directory=directory, file_name=file_name, file_size=file_size, **values)


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
_SINGLE_TEXTS = frozenset(
    attribute for attribute, vr in _WANTED.values() if vr in (b"UI", b"CS", b"LO") and attribute != "image_type"
)


def _codec(character_set: bytes) -> str:
    name = character_set.strip(b" \0")
    codec = _CODECS.get(name.decode("latin-1"))
    if codec is None:
        raise _Doubt
    return codec


def _is_implicit(elements: list[_Element]) -> bool:
    return elements[-1].fixed == _IMPLICIT_FIXED


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


def _values(head: bytes, elements: list[_Element]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for element in elements:
        start = element.start + len(element.head)
        if element.tag == _PIXEL_DATA:
            values["pixel_offset"], values["pixel_length"] = start, element.length
        elif element.tag in _WANTED:
            values[_WANTED[element.tag][0]] = head[start : start + element.length]
    return values


def _segments(elements: list[_Element], variable: set[int]) -> list[_Segment]:
    segments = []
    heads, values, expected, attributes = "<", "<", [], []
    for number, element in enumerate(elements):
        size = len(element.head)
        if number not in variable and element.tag != _PIXEL_DATA:
            heads += f"{size}s{element.length}x"
            expected.append(element.head)
            wanted = _WANTED.get(element.tag)
            values += f"{size}x{element.length}{'s' if wanted else 'x'}"
            if wanted:
                attributes.append(wanted[0])
            continue
        heads += f"{element.fixed}s"
        expected.append(element.head[: element.fixed])
        heads_struct = struct.Struct(heads)
        segments.append(
            _Segment(
                heads=heads_struct,
                expected=tuple(expected),
                values=struct.Struct(values),
                attributes=tuple(attributes),
                texts=tuple(name for name in attributes if name in _TEXT),
                memo={},
                length_at=heads_struct.size,
                long=element.fixed != _SHORT_FIXED,
                last=_WANTED[element.tag][0] if element.tag in _WANTED else None,
            )
        )
        heads, values, expected, attributes = "<", "<", [], []
    return segments
