"""Reading the header rows of DICOM files: the fast walker where it is certain, pydicom for everything else.

pydicom is given a file of which it may read only so much, so no bytes whatever make it read or keep
more than `HEADER_BUDGET`.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import warnings
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from kaapana_nb.data.header import TAGS, InstanceHeader, header_from_dataset
from kaapana_nb.data.scan import FileEntry
from kaapana_nb.data.walker import HEAD_BYTES, HeaderWalker

HEADER_BUDGET = 4 << 20
"""Most bytes read of one file for its header."""
_LONG_HEAD = 128 << 10
_BUFFER = 16 << 10
_PER_FRAME_GROUP = 0x52000000  # functional groups of enhanced objects: long, and nothing of them is in a header row
_PIXEL_TAGS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_PIXEL_DATA = 0x7FE00010
_DEFLATED = "1.2.840.10008.1.2.1.99"
_MEDIA_DIRECTORY = b"1.2.840.10008.1.3.10"  # MediaStorageSOPClassUID of a DICOMDIR
_EXPLICIT_META = bytes(128) + b"DICM" + b"\2\0\x10\0UI\x14\x001.2.840.10008.1.2.1\0"  # what a deflated file becomes
_UNDEFINED = 0xFFFFFFFF
_AHEAD = 128


class Unreadable(NamedTuple):
    """A file that has no header row, and why; `harmless` where nothing is lost by it."""

    directory: Path
    file_name: str
    problem: str
    remedy: str
    file_size: int = 0
    harmless: bool = False


def read_headers(paths: Iterable[Path]) -> list[InstanceHeader]:
    """The header rows of those files that are DICOM files, in the order of `paths`."""
    walker = HeaderWalker()
    results = (read_header(path, walker) for path in paths)
    return [result for result in results if isinstance(result, InstanceHeader)]


def read_header(path: Path, walker: HeaderWalker | None = None) -> InstanceHeader | Unreadable:
    """The header row of one file, or why there is none."""
    size, head = _head(_open(path))
    return _read(path.parent, path.name, size, head, walker or HeaderWalker(remember=False))


class HeaderReader:
    """Reads the headers of directory after directory, in the order asked for, with the disk working ahead.

    The kernel is told of the next `_AHEAD` files before they are read, so a slow disk is never waited for
    one file at a time; threads would do the same, and wait for one another.
    """

    def __init__(self) -> None:
        self._walker = HeaderWalker()

    def read(self, directory: Path, entries: list[FileEntry]) -> Iterator[InstanceHeader | Unreadable]:
        """One result per file, in the order of `entries`."""
        prefix = f"{directory}/"
        opened: deque[int | str] = deque()
        following = iter(entries)
        try:
            for entry in itertools.islice(following, _AHEAD):
                opened.append(_open(prefix + entry.name))
            for entry in entries:
                size, head = _head(opened.popleft())
                upcoming = next(following, None)
                if upcoming is not None:
                    opened.append(_open(prefix + upcoming.name))
                yield _read(directory, entry.name, size, head, self._walker)
        finally:
            for left in opened:
                if isinstance(left, int):
                    os.close(left)


def _open(path: str | Path) -> int | str:
    """An open file whose first bytes are on their way, or why it cannot be opened."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        return error.strerror or "error"
    with contextlib.suppress(OSError):  # advice only: not every file system takes it
        os.posix_fadvise(fd, 0, HEAD_BYTES, os.POSIX_FADV_WILLNEED)
    return fd


def _head(opened: int | str, count: int = HEAD_BYTES) -> tuple[int, bytes]:
    """Size and first bytes of a file of `_open`, which is closed; (-1, reason) where it cannot be read."""
    if isinstance(opened, str):
        return -1, opened.encode()
    try:
        head = os.read(opened, count)
        return (os.fstat(opened).st_size if len(head) == count else len(head)), head
    except OSError as error:
        return -1, (error.strerror or "error").encode()
    finally:
        os.close(opened)


def _read(directory: Path, name: str, size: int, head: bytes, walker: HeaderWalker) -> InstanceHeader | Unreadable:
    if size < 0:
        return Unreadable(
            directory, name, f"The file cannot be read: {head.decode(errors='replace')}.", "Check its permissions."
        )
    if size == 0:
        return Unreadable(directory, name, "The file is empty (0 bytes).", "Delete it, or fetch the series again.")
    if head[128:132] == b"DICM" and _MEDIA_DIRECTORY in head[:512]:
        problem = "The file is a DICOMDIR, the table of contents of a medium."
        return Unreadable(directory, name, problem, "Leave it: the files themselves are read.", size, harmless=True)
    header = walker.read(head, directory, name, size)
    if header is None and size > len(head) and head[128:132] == b"DICM":
        size, head = _head(_open(directory / name), _LONG_HEAD)
        header = walker.read(head, directory, name, size)
    if header is None and head[128:132] == b"DICM" and _DEFLATED.encode() in head[:2048]:
        header = _read_deflated(directory, name, size, head, walker)
    if header is None:
        return _read_with_pydicom(directory, name, size, head)
    if not header.sop_class_uid or not header.sop_instance_uid:
        return _incomplete(directory, name, size, header)
    return header


def _incomplete(directory: Path, name: str, size: int, header: InstanceHeader) -> Unreadable:
    missing = "SOPClassUID" if not header.sop_class_uid else "SOPInstanceUID"
    return Unreadable(
        directory, name, f"The header has no {missing}.", "Fetch the series again: the file is damaged.", size
    )


def _read_with_pydicom(directory: Path, name: str, size: int, head: bytes) -> InstanceHeader | Unreadable:
    is_part10 = head[128:132] == b"DICM"
    no_dicom = Unreadable(directory, name, "The file is no DICOM file.", "Move it out of the series' directory.", size)
    if not is_part10 and not _may_be_bare_dataset(head):
        return no_dicom
    try:
        with (directory / name).open("rb", buffering=_BUFFER) as raw:
            header, cut = _parse(raw, directory, name, size)
    except _BudgetError:
        return Unreadable(
            directory,
            name,
            f"The header is longer than {HEADER_BUDGET >> 20} MiB, or damaged so that it seems to be.",
            "Fetch the series again.",
            size,
        )
    except Exception as error:  # noqa: BLE001 - pydicom raises many kinds on damaged files; each is this file's verdict
        return Unreadable(
            directory, name, f"The header cannot be read ({type(error).__name__}).", "Fetch the series again.", size
        )
    if cut:
        return Unreadable(directory, name, "The file ends within its header.", "Fetch the series again.", size)
    if not is_part10 and not (header.sop_class_uid and header.sop_instance_uid):
        return no_dicom
    if not header.sop_class_uid or not header.sop_instance_uid:
        return _incomplete(directory, name, size, header)
    return header


def _parse(raw: BinaryIO, directory: Path, name: str, size: int) -> tuple[InstanceHeader, bool]:
    """The header row as pydicom reads it, and whether the file ends before its pixels."""
    from pydicom.filereader import read_partial

    file = _BoundedFile(raw, size, HEADER_BUDGET)
    pixels: list[int] = []

    def stop(tag: int, _vr: str | None, length: int) -> bool:
        if tag in _PIXEL_TAGS:
            pixels[:] = (file.tell(), length) if tag == _PIXEL_DATA else (0, 0)
        return tag >= _PER_FRAME_GROUP

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = read_partial(cast("BinaryIO", file), stop_when=stop, force=True, specific_tags=list(TAGS))
        header = header_from_dataset(dataset, directory / name, size)._replace(directory=directory, file_name=name)
    if pixels and pixels[0]:
        offset, length = pixels
        header = header._replace(pixel_offset=offset, pixel_length=None if length == _UNDEFINED else length)
    return header, file.cut and not pixels


def _may_be_bare_dataset(head: bytes) -> bool:
    """Whether bytes without the DICM mark begin like file meta information or a dataset (group 2 or 8)."""
    return len(head) > 8 and head[0] in (2, 8) and head[1] == 0


def _read_deflated(directory: Path, name: str, size: int, head: bytes, walker: HeaderWalker) -> InstanceHeader | None:
    """The header row of a deflated file (PS3.5 section A.5), inflated no further than needed."""
    start = 144 + int.from_bytes(head[140:144], "little")
    header = None
    for room in (2 * HEAD_BYTES, HEADER_BUDGET - len(_EXPLICIT_META)):
        try:
            with (directory / name).open("rb") as file:
                file.seek(start)
                plain = _EXPLICIT_META + zlib.decompressobj(-zlib.MAX_WBITS).decompress(file.read(room), room)
            header = walker.read(plain, directory, name, len(plain))
        except (zlib.error, OSError):
            return None
        if header is not None:
            break
    else:
        try:
            header, cut = _parse(io.BytesIO(plain), directory, name, len(plain))
        except Exception:  # noqa: BLE001 - pydicom's own reading says what is wrong
            return None
        if cut:
            return None
    return header._replace(transfer_syntax_uid=_DEFLATED, pixel_offset=None, pixel_length=None, file_size=size)


class _BudgetError(Exception):
    """More of a file was asked for than its header may have."""


class _BoundedFile:
    """A file to read from, up to a number of bytes in all. Notes when something was expected past its end."""

    def __init__(self, file: BinaryIO, size: int, budget: int) -> None:
        self._file, self._size, self._budget = file, size, budget
        self.cut = False

    def read(self, count: int = -1) -> bytes:
        if count < 0:
            raise _BudgetError  # pydicom would inflate all that is left, however large it becomes
        position = self._file.tell()
        left = max(0, self._size - position)
        self._budget -= min(count, left)
        if self._budget < 0:
            raise _BudgetError
        data = self._file.read(min(count, left))
        # pydicom asks for 1 byte (is there more?) or 8 (next element) at the end of a whole file
        if len(data) < count and (data or count not in (1, 8) or position > self._size):
            self.cut = True
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        position = self._file.seek(offset, whence)
        if position == 0:
            self.cut = False
        return position

    def tell(self) -> int:
        return self._file.tell()
