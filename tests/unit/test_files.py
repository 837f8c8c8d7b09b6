"""Atomic files: no reader sees half of one, whenever the writer dies."""

from __future__ import annotations

import os
import random
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kaapana_nb import files
from kaapana_nb.files import atomic_file, write_atomic

WRITER = """
import itertools, sys
from pathlib import Path
from kaapana_nb.files import atomic_file
target = Path(sys.argv[1])
print("ready", flush=True)
for number in itertools.count():
    with atomic_file(target) as file:
        for _ in range(16):
            file.write(bytes([number % 256]) * 65536)
"""


def fail_half_way(target: Path) -> None:
    with atomic_file(target) as file:
        file.write(b"new, but only ha")
        raise RuntimeError("half-way")


def test_writes_what_was_given_with_the_mode_asked_for(tmp_path: Path) -> None:
    write_atomic(tmp_path / "new" / "deep" / "file", b"content", mode=0o600)
    target = tmp_path / "new" / "deep" / "file"
    assert target.read_bytes() == b"content"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert [path.name for path in target.parent.iterdir()] == ["file"]


def test_replaces_and_leaves_the_old_content_on_error(tmp_path: Path) -> None:
    target = tmp_path / "file"
    write_atomic(target, b"old")
    with pytest.raises(RuntimeError, match="half-way"):
        fail_half_way(target)
    assert target.read_bytes() == b"old"
    write_atomic(target, b"new")
    assert target.read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_works_where_the_file_system_has_no_nameless_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = os.open

    def refuse(path: str | os.PathLike[str], flags: int, mode: int = 0o777) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(95, "Operation not supported")
        return real(path, flags, mode)

    monkeypatch.setattr(files.os, "open", refuse)
    write_atomic(tmp_path / "file", b"content")
    with pytest.raises(RuntimeError, match="half-way"):
        fail_half_way(tmp_path / "other")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"content")]


def test_long_names_fit(tmp_path: Path) -> None:
    write_atomic(tmp_path / ("x" * 255), b"content")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"content"]


def test_killed_writer_leaves_whole_files_only(tmp_path: Path) -> None:
    moments = random.Random(20261122)
    for attempt in range(12):
        directory = tmp_path / str(attempt)
        directory.mkdir()
        target = directory / "file"
        with subprocess.Popen([sys.executable, "-c", WRITER, str(target)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(moments.uniform(0, 0.15))
            writer.send_signal(signal.SIGKILL)
        named = [path for path in directory.iterdir() if not path.name.endswith(".part")]
        assert named in ([], [target])
        for path in directory.iterdir():  # a name, hidden or not, is only ever given to a whole file
            content = path.read_bytes()
            assert len(content) == 16 * 65536
            assert len(set(content)) == 1
