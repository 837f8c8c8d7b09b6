"""Reading the header rows of DICOM files: the fast walker where it is certain, pydicom for everything else.

pydicom is given a file of which it may read only so much, so no bytes whatever make it read or keep
more than `HEADER_BUDGET`.
"""

from __future__ import annotations

import io
import os
import time
import warnings
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

from kaapana_nb.data.header import TAGS, InstanceHeader, header_from_dataset
from kaapana_nb.data.scan import FileEntry
from kaapana_nb.data.walker import HEAD_BYTES, HeaderWalker

if TYPE_CHECKING:
    from pydicom import Dataset

HEADER_BUDGET = 4 << 20
"""Most bytes read of one file for its header."""
_LONG_HEAD = 128 << 10
_PER_FRAME_GROUP = 0x52000000  # functional groups of enhanced objects: long, and nothing of them is in a header row
_PIXEL_TAGS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_PIXEL_DATA = 0x7FE00010
_DEFLATED = "1.2.840.10008.1.2.1.99"
_MEDIA_DIRECTORY = b"1.2.840.10008.1.3.10"  # MediaStorageSOPClassUID of a DICOMDIR
_UNDEFINED = 0xFFFFFFFF
_THREADS = 8
_PROBE = 16
_SLOW_READ_S = 60e-6  # from the page cache an open, read and close takes about 10 µs
_CHUNK = 64


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
    size, head = _head(path)
    return _read(path.parent, path.name, size, head, walker or HeaderWalker())


def read_directory(
    directory: Path, entries: list[FileEntry], walker: HeaderWalker
) -> Iterator[InstanceHeader | Unreadable]:
    """One result per file, in the order of `entries`; reads ahead with threads where the disk is slow."""
    prefix = f"{directory}/"
    probe, times = [], [0.0]
    for entry in entries[:_PROBE]:
        begin = time.perf_counter()
        probe.append(_head(prefix + entry.name))
        times.append(time.perf_counter() - begin)
    slow = sorted(times)[len(times) // 2] > _SLOW_READ_S
    for entry, (size, head) in zip(entries, probe, strict=False):
        yield _read(directory, entry.name, size, head, walker)
    rest = entries[_PROBE:]
    if not slow:
        for entry in rest:
            size, head = _head(prefix + entry.name)
            yield _read(directory, entry.name, size, head, walker)
        return
    chunks = [rest[start : start + _CHUNK] for start in range(0, len(rest), _CHUNK)]
    with ThreadPoolExecutor(_THREADS) as pool:
        for chunk, heads in zip(
            chunks, pool.map(lambda chunk: [_head(prefix + e.name) for e in chunk], chunks), strict=True
        ):
            for entry, (size, head) in zip(chunk, heads, strict=True):
                yield _read(directory, entry.name, size, head, walker)


def _head(path: str | Path, count: int = HEAD_BYTES) -> tuple[int, bytes]:
    """Size of a file and its first bytes; (-1, reason) where it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        return -1, (error.strerror or "error").encode()
    try:
        head = os.read(fd, count)
        return (os.fstat(fd).st_size if len(head) == count else len(head)), head
    except OSError as error:
        return -1, (error.strerror or "error").encode()
    finally:
        os.close(fd)


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
        size, head = _head(directory / name, _LONG_HEAD)
        header = walker.read(head, directory, name, size)
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
    pixels: list[int] = []
    path = directory / name
    try:
        with path.open("rb", buffering=0) as raw, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            file = _BoundedFile(io.BufferedReader(raw, 1 << 14), size, HEADER_BUDGET)
            if is_part10 and _DEFLATED.encode() in head[:2048]:
                dataset, cut = _read_deflated(file)
            else:
                dataset = _read_partial(file, pixels)
                cut = file.cut
            header = header_from_dataset(dataset, path, size)._replace(directory=directory, file_name=name)
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
    if cut and not pixels:
        return Unreadable(directory, name, "The file ends within its header.", "Fetch the series again.", size)
    if not is_part10 and not (header.sop_class_uid and header.sop_instance_uid):
        return no_dicom
    if not header.sop_class_uid or not header.sop_instance_uid:
        return _incomplete(directory, name, size, header)
    if pixels and pixels[0]:
        offset, length = pixels
        return header._replace(pixel_offset=offset, pixel_length=None if length == _UNDEFINED else length)
    return header


def _may_be_bare_dataset(head: bytes) -> bool:
    """Whether bytes without the DICM mark begin like file meta information or a dataset (group 2 or 8)."""
    return len(head) > 8 and head[0] in (2, 8) and head[1] == 0


def _read_partial(file: _BoundedFile, pixels: list[int]) -> Dataset:
    from pydicom.filereader import read_partial

    def stop(tag: int, _vr: str | None, length: int) -> bool:
        if tag in _PIXEL_TAGS:
            pixels[:] = (file.tell(), length) if tag == _PIXEL_DATA else (0, 0)
        return tag >= _PER_FRAME_GROUP

    return read_partial(cast("BinaryIO", file), stop_when=stop, force=True, specific_tags=list(TAGS))


def _read_deflated(file: _BoundedFile) -> tuple[Dataset, bool]:
    """The dataset of a deflated file (PS3.5 section A.5), inflated no further than the header's budget."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.filereader import read_dataset

    start = file.read(144)
    file.seek(144 + int.from_bytes(start[140:144], "little"))
    inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(file.read(HEADER_BUDGET // 2), HEADER_BUDGET)
    inner = _BoundedFile(io.BytesIO(inflated), len(inflated), HEADER_BUDGET)
    pixels: list[int] = []

    def stop(tag: int, _vr: str | None, length: int) -> bool:
        if tag in _PIXEL_TAGS:
            pixels[:] = inner.tell(), length
        return tag >= _PER_FRAME_GROUP

    tags: list[Any] = list(TAGS)
    dataset: Any = read_dataset(cast("BinaryIO", inner), False, True, stop_when=stop, specific_tags=tags)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = _DEFLATED
    return dataset, inner.cut and not pixels


class _BudgetError(Exception):
    """More of a file was asked for than its header may have."""


class _BoundedFile:
    """A file to read from, up to a number of bytes in all. Notes when something was expected past its end."""

    def __init__(self, file: BinaryIO | io.BufferedReader, size: int, budget: int) -> None:
        self._file, self._size, self._budget = file, size, budget
        self.cut = False

    def read(self, count: int = -1) -> bytes:
        position = self._file.tell()
        left = max(0, self._size - position)
        wanted = left if count < 0 else count
        self._budget -= min(wanted, left)
        if self._budget < 0:
            raise _BudgetError
        data = self._file.read(min(wanted, left))
        # pydicom asks for 1 byte (is there more?) or 8 (next element) at the end of a whole file
        if len(data) < wanted and (data or wanted not in (1, 8) or position > self._size):
            self.cut = True
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        position = self._file.seek(offset, whence)
        if position == 0:
            self.cut = False
        return position

    def tell(self) -> int:
        return self._file.tell()
