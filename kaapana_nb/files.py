"""Writing files so that no reader ever sees half of one."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_NO_TMPFILE = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT})


@contextlib.contextmanager
def atomic_file(path: Path, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Open a nameless file that becomes `path` when the block ends without an error.

    The content is on disk (fsync) before the name appears, an existing file is replaced
    in one step, and a killed process leaves nothing behind: the file has no name until it is
    whole (Linux ``O_TMPFILE``). On file systems without that it is a hidden ``.part`` file
    next to `path`, removed on any error.
    """
    directory = path.parent
    directory.mkdir(parents=True, exist_ok=True)
    temporary: Path | None = None
    try:
        fd = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, mode)
    except OSError as error:
        if error.errno not in _NO_TMPFILE:
            raise
        temporary = _part_name(path)
        fd = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(fd, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if temporary is None:
                temporary = _part_name(path)
                _link(file.fileno(), temporary)
            temporary.replace(path)
            temporary = None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    _sync_directory(directory)


def write_atomic(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write `data` to `path` as `atomic_file` does."""
    with atomic_file(path, mode) as file:
        file.write(data)


def _part_name(path: Path) -> Path:
    return path.parent / f".{path.name[:200]}.{secrets.token_hex(4)}.part"


def _link(descriptor: int, path: Path) -> None:
    """Give an open nameless file its first name (linkat(2) with AT_SYMLINK_FOLLOW).

    A directory's descriptor is passed only because Python calls linkat for no other reason; the
    source is an absolute path.
    """
    directory = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=directory, follow_symlinks=True)
    finally:
        os.close(directory)


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
