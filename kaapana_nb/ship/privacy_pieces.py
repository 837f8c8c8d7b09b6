"""The texts in a file: notebook cells, members of archives, what is escaped, encoded or compressed."""

from __future__ import annotations

import base64
import binascii
import bz2
import gzip
import html
import io
import json
import lzma
import re
import urllib.parse
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

MAX_DEPTH = 3
"""Archives in archives and encodings in encodings: no deeper."""

MAX_UNPACKED = 1 << 30
"""Bytes that one compressed file or member may unpack to."""

UNREADABLE = "archive that cannot be searched"

_GZIP, _XZ, _BZIP = b"\x1f\x8b\x08", b"\xfd7zXZ\x00", b"BZh"
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{16,}={0,2}")
_HEX = re.compile(r"[0-9a-f]+\Z")
_BACKSLASH = re.compile(r"\\(?:u\{?([0-9A-Fa-f]{4})\}?|x([0-9A-Fa-f]{2})|U([0-9A-Fa-f]{8})|[nrt])")
_PERCENT = re.compile(r"%[0-9A-Fa-f]{2}")
_ENTITY = re.compile(r"&[#A-Za-z][A-Za-z0-9]*;")
_RUNS = {
    "ascii": re.compile(rb"[\t\x20-\x7e]{6,}"),
    "latin-1": re.compile(rb"[\t\x20-\x7e\x80-\xff]{8,}"),
    "utf-16-le": re.compile(rb"(?:[\x01-\xff][\x00-\x05]){4,}"),  # up to U+05FF: Latin, Greek, Cyrillic
    "utf-16-be": re.compile(rb"(?:[\x00-\x05][\x01-\xff]){4,}"),
}
"""What text looks like in binary data."""
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\v\f\r\x1b"))
_PART = 1 << 24  # bytes of binary data looked at at once
_OVERLAP = 1 << 12


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A text in a file.

    Attributes
    ----------
    path
        The file's path; a member of an archive as ``archive!member``.
    cell
        Number of the notebook cell, from 1 on.
    line
        Line in the file or cell that the text stands in, from 1 on, where it is not the text itself that is
        counted: inside an encoded value. ``None``: count in the text; 0: no line can be told.
    published
        Whether it comes out of a wheel: a package that was not made from the notebook.
    plain
        Whether it is the text as it stands there, not one decoded from binary data.
    long_only
        Whether only values that cannot stand there by chance are worth searching for.
    problem
        What keeps the file from being searched, empty for nothing.
    """

    path: str
    text: str
    cell: int | None = None
    line: int | None = None
    published: bool = False
    plain: bool = True
    long_only: bool = False
    problem: str = ""

    def line_at(self, offset: int) -> int:
        """The line of a position in the text."""
        return self.text.count("\n", 0, offset) + 1 if self.line is None else self.line


def pieces(path: str, data: bytes) -> Iterator[Piece]:
    """Every text in a file."""
    return _pieces(Piece(path=path, text=""), data, 0)


def variants(text: str) -> Iterator[str]:
    """The text, and what it says where escapes are resolved: ``\\u00e9``, ``%C3%A9``, ``&eacute;``.

    Resolving keeps the lines as they are.
    """
    yield text
    if "\\" in text and (other := _BACKSLASH.sub(_character, text)) != text:
        yield other
    if _PERCENT.search(text):
        yield urllib.parse.unquote(text, errors="replace")
    if _ENTITY.search(text):
        yield html.unescape(text)


def _pieces(at: Piece, data: bytes, depth: int) -> Iterator[Piece]:
    if data.startswith(b"PK\x03\x04"):
        yield from _archive(at, data, depth)
    elif data.startswith((_GZIP, _XZ, _BZIP)):
        yield from _compressed(at, data, depth)
    else:
        if at.path.lower().endswith(".ipynb") and at.cell is None and (notebook := _parsed(data)) is not None:
            found = _notebook(at, notebook)
        else:
            found = _texts(at, data)
        for piece in found:
            yield piece
            if piece.plain and depth < MAX_DEPTH:
                yield from _encoded(piece, depth)


def _texts(at: Piece, data: bytes) -> Iterator[Piece]:
    """The text of a file; of binary data what it says in each usual encoding."""
    try:
        if b"\0" not in data:
            yield replace(at, text=data.decode("utf-8-sig"))
            return
    except UnicodeDecodeError:
        if len(data.translate(None, _CONTROLS)) == len(data):  # text in an older encoding, or in two of them
            yield replace(at, text=data.decode("latin-1"))
            yield replace(at, text=data.decode("utf-8", "ignore"))
            return
    if data[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        yield replace(at, text=data.decode("utf-16", "replace"), plain=False)
        return
    line = 0 if at.line is None else at.line
    for start in range(0, len(data), _PART):
        part = data[start : start + _PART + _OVERLAP]
        for encoding, run in _RUNS.items():
            found = b"".join(fragment + "\n".encode(encoding) for fragment in run.findall(part))
            # Among bytes of any value a short word stands by chance.
            place = replace(at, line=line, plain=False, long_only=encoding == "latin-1")
            yield replace(place, text=found.decode(encoding, "replace"))
            if encoding == "latin-1":
                yield replace(place, text=found.decode("utf-8", "ignore"))


def _parsed(data: bytes) -> list[tuple[str, Any]] | None:
    """JSON with objects as lists of pairs, so that a repeated key hides nothing, and with numbers as they stand."""
    try:
        value = json.loads(data, object_pairs_hook=_Pairs, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, _Pairs) else None


class _Pairs(list[tuple[str, Any]]):
    """A JSON object."""


def _notebook(at: Piece, notebook: list[tuple[str, Any]]) -> Iterator[Piece]:
    for key, value in notebook:
        if key != "cells" or not isinstance(value, list):
            yield from _strings(replace(at, line=0), _Pairs([(key, value)]))
            continue
        for number, cell in enumerate(value, start=1):
            place = replace(at, cell=number)
            for name, content in cell if isinstance(cell, _Pairs) else [("", cell)]:
                if name == "source" and (source := _joined(content)) is not None:
                    yield replace(place, text=source)
                else:
                    yield from _strings(replace(place, line=0), _Pairs([(name, content)]))


def _strings(at: Piece, value: Any) -> Iterator[Piece]:
    """Every text in a JSON value, keys included; a list of texts is one text cut into lines as well."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            yield replace(at, text=item)
        elif isinstance(item, _Pairs):
            stack += [part for pair in item for part in pair]
        elif isinstance(item, list):
            joined = _joined(item)
            lines = joined is not None and all(line.endswith("\n") for line in item[:-1])
            stack += [joined] if lines else item


def _joined(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(line, str) for line in value):
        return "".join(value)
    return None


def _encoded(piece: Piece, depth: int) -> Iterator[Piece]:
    """What base64 in a text says, and what it packs."""
    compact = "".join(piece.text.split()) if piece.line == 0 else ""
    tokens = (
        [(0, compact)] if _BASE64.fullmatch(compact) else [(m.start(), m.group()) for m in _BASE64.finditer(piece.text)]
    )
    for start, token in tokens:
        if _HEX.match(token):  # a digest
            continue
        body = token.rstrip("=").replace("-", "+").replace("_", "/")
        try:
            data = base64.b64decode(body + "=" * (-len(body) % 4))
        except binascii.Error:
            continue
        yield from _pieces(replace(piece, text="", line=piece.line_at(start), plain=False), data, depth + 1)


def _archive(at: Piece, data: bytes, depth: int) -> Iterator[Piece]:
    published = at.published or at.path.lower().endswith(".whl")
    if depth >= MAX_DEPTH:
        yield replace(at, problem=UNREADABLE)
        return
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            yield replace(at, text=archive.comment.decode("utf-8", "replace"), line=0, plain=False)
            for member in archive.infolist():
                place = replace(at, path=f"{at.path}!{member.filename}", published=published)
                yield replace(place, text=member.filename, line=0)
                if not member.is_dir():
                    with archive.open(member) as file:
                        yield from _bounded(place, file, depth)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError, EOFError, zlib.error, lzma.LZMAError):
        if at.plain:  # damaged, encrypted, or packed in a way that is not known
            yield replace(at, problem=UNREADABLE)
        else:
            yield from _texts(at, data)


def _compressed(at: Piece, data: bytes, depth: int) -> Iterator[Piece]:
    opener = gzip.open if data.startswith(_GZIP) else lzma.open if data.startswith(_XZ) else bz2.open
    try:
        if depth >= MAX_DEPTH:
            yield replace(at, problem=UNREADABLE)
            return
        with opener(io.BytesIO(data)) as file:
            yield from _bounded(at, file, depth)
    except (OSError, EOFError, zlib.error, lzma.LZMAError):
        if at.plain:
            yield replace(at, problem=UNREADABLE)
        else:  # bytes that were decoded from some text may begin like a compressed file by chance
            yield from _texts(at, data)


def _bounded(at: Piece, file: _Readable, depth: int) -> Iterator[Piece]:
    content = file.read(MAX_UNPACKED + 1)
    if len(content) > MAX_UNPACKED:
        yield replace(at, problem=UNREADABLE)
    else:
        yield from _pieces(at, content, depth + 1)


def _character(match: re.Match[str]) -> str:
    digits = next((group for group in match.groups() if group), "20")  # a line feed or tabulator: a gap
    code = int(digits, 16)
    # A real line feed would move the lines; half of a surrogate pair is no character.
    return match.group() if code == 10 or 0xD800 <= code < 0xE000 or code > 0x10FFFF else chr(code)
