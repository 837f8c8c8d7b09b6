"""Listing the files of a directory with what tells whether they have changed."""

from __future__ import annotations

import bisect
import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

OWN_DIRECTORY = "kaapana-run"
"""Results of a directory that is no workflow run are kept below this name in it; never scanned as input."""


IMAGE_SUFFIXES = (".nrrd", ".nii", ".nii.gz", ".mha")
"""Image files of earlier operators."""
CACHE_NAME = ".kaapana-nb-index"
"""The file in which an index is remembered; no input either."""


class FileEntry(NamedTuple):
    """One regular file: name relative to the scanned directory, bytes, and times of change in nanoseconds."""

    name: str
    size: int
    mtime_ns: int
    ctime_ns: int


def scan_files(directory: Path) -> list[FileEntry]:
    """All regular files below `directory`, by name, hidden ones included.

    Links to files are followed, links to directories are not; what cannot be listed is left out.
    """
    entries: list[FileEntry] = []
    pending = [""]
    while pending:
        prefix = pending.pop()
        try:
            with os.scandir(directory / prefix if prefix else directory) as found:
                for entry in found:
                    name = prefix + entry.name
                    try:
                        status = entry.stat(follow_symlinks=False)
                        kind = stat.S_IFMT(status.st_mode)
                        if kind == stat.S_IFLNK:
                            status = entry.stat()
                            kind = stat.S_IFREG if stat.S_ISREG(status.st_mode) else 0
                    except OSError:
                        continue
                    if kind == stat.S_IFREG:
                        entries.append(FileEntry(name, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
                    elif kind == stat.S_IFDIR and name != OWN_DIRECTORY:
                        pending.append(name + "/")
        except OSError:
            continue
    entries.sort()
    at = bisect.bisect_left(entries, (CACHE_NAME,))
    if at < len(entries) and entries[at].name == CACHE_NAME:
        del entries[at]
    return entries


def fingerprint(entries: Iterable[FileEntry]) -> str:
    """Text that changes when a file is added, removed, renamed, written or replaced."""
    text = "\0".join(f"{name}/{size}/{mtime}/{ctime}" for name, size, mtime, ctime in entries)
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def is_hidden(name: str) -> bool:
    """Whether a file's name begins with a dot."""
    return name.rpartition("/")[2].startswith(".")


def list_files(directory: Path) -> list[str]:
    """Names of the files directly in `directory` that are not hidden, sorted; without looking at the files."""
    try:
        with os.scandir(directory) as found:
            return sorted(entry.name for entry in found if not entry.name.startswith(".") and entry.is_file())
    except OSError:
        return []
