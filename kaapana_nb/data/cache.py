"""The index on disk: what was found in directories that have not changed since.

It lies beside the batch, hidden and readable by its owner alone, or in the user's cache directory where the
batch is read-only. It holds no PatientID, and no file names: a directory's files are known by their
fingerprint. One file, replaced as a whole, so two processes at once do each other no harm; whatever is not
exactly as written counts as absent.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kaapana_nb.data.header import InstanceHeader
from kaapana_nb.data.scan import CACHE_NAME
from kaapana_nb.files import atomic_file

FORMAT = "kaapana-nb index 1\n"
_MAX_CACHE = 1 << 30
_LEFT_OUT = frozenset({"directory", "file_name", "patient_id"})
_LISTS = frozenset({"image_type", "pixel_spacing", "image_position", "image_orientation"})


@dataclass(slots=True)
class CachedSource:
    """What is known of one directory: its fingerprint, a summary, and its header rows, packed."""

    fingerprint: str
    summary: Any
    rows: bytes


@dataclass(slots=True)
class IndexCache:
    """The cache of one batch."""

    path: Path
    sources: dict[str, CachedSource] = field(default_factory=dict)

    def get(self, key: str, fingerprint: str) -> CachedSource | None:
        """What was stored of a directory, if its files are still the same."""
        source = self.sources.get(key)
        return source if source is not None and source.fingerprint == fingerprint else None

    def save(self) -> None:
        """Write the cache; a cache that cannot be written is done without."""
        table: dict[str, list[Any]] = {}
        offset = 0
        for key, source in self.sources.items():
            table[key] = [source.fingerprint, source.summary, offset, len(source.rows), zlib.crc32(source.rows)]
            offset += len(source.rows)
        head = json.dumps(table, ensure_ascii=True).encode()
        try:
            with atomic_file(self.path, 0o600) as file:
                file.write(f"{FORMAT}{len(head)} {zlib.crc32(head)}\n".encode())
                file.write(head)
                for source in self.sources.values():
                    file.write(source.rows)
        except OSError:
            return


def open_cache(directory: Path, environ: Mapping[str, str] | None = None) -> IndexCache:
    """The cache of the batch in `directory`; empty when there is none that can be trusted."""
    environ = os.environ if environ is None else environ
    if os.access(directory, os.W_OK):
        path = directory / CACHE_NAME
    else:
        name = hashlib.blake2b(os.fsencode(directory), digest_size=16).hexdigest()
        base = Path(environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME") or "~").expanduser() / ".cache")
        path = base / "kaapana-nb" / "index" / name
    return IndexCache(path=path, sources=_load(path))


def _load(path: Path) -> dict[str, CachedSource]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return {}
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(file.fileno())
        # somebody else's file could say anything of the batch
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_size > _MAX_CACHE:
            return {}
        data = file.read(status.st_size)
    try:
        return _parse(data)
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        return {}


def _parse(data: bytes) -> dict[str, CachedSource]:
    if not data.startswith(FORMAT.encode()):
        return {}
    line_end = data.index(b"\n", len(FORMAT))
    length, checksum = map(int, data[len(FORMAT) : line_end].split())
    body = line_end + 1 + length
    head = data[line_end + 1 : body]
    if len(head) != length or zlib.crc32(head) != checksum:
        return {}
    sources = {}
    for key, (fingerprint, summary, offset, size, crc) in json.loads(head).items():
        rows = data[body + offset : body + offset + size]
        if len(rows) == size and zlib.crc32(rows) == crc:
            sources[key] = CachedSource(fingerprint, summary, rows)
    return sources


def pack_rows(headers: list[InstanceHeader]) -> bytes:
    """Header rows column by column; a column whose values are all the same is stored once."""
    columns: dict[str, Any] = {}
    for name, values in zip(InstanceHeader._fields, zip(*headers, strict=True), strict=False):
        if name not in _LEFT_OUT:
            columns[name] = {"all": values[0]} if values.count(values[0]) == len(values) else values
    return json.dumps({"count": len(headers), "columns": columns}, ensure_ascii=True).encode()


def unpack_rows(data: bytes, directory: Path, names: list[str]) -> list[InstanceHeader]:
    """The rows of `pack_rows` for the files `names`, in the same order.

    Raises
    ------
    ValueError
        When they are not as written.
    """
    content = json.loads(data)
    count = content["count"]
    if count != len(names):
        raise ValueError("another number of rows")
    columns: list[list[Any]] = [[directory] * count, names]
    for name in InstanceHeader._fields[2:]:
        stored = content["columns"].get(name)
        if name in _LEFT_OUT or not count:
            columns.append([None] * count)
        elif isinstance(stored, dict):
            columns.append([_value(name, stored["all"])] * count)
        else:
            if len(stored) != count:
                raise ValueError("another number of values")
            columns.append([_value(name, value) for value in stored] if name in _LISTS else stored)
    return [InstanceHeader(*values) for values in zip(*columns, strict=True)]


def _value(name: str, value: Any) -> Any:
    return tuple(value) if name in _LISTS and value is not None else value
