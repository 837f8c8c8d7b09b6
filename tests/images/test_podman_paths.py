"""podman works from any directory, and leaves nothing in the one it was started from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kaapana_nb.clients.podman import PodmanRunner

pytestmark = pytest.mark.images


@pytest.mark.skipif(shutil.which("podman") is None, reason="podman is not installed")
def test_a_storage_below_a_hidden_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    runner = PodmanRunner(tmp_path / ".local" / "share" / "containers")
    try:
        assert runner.unusable() == ""
    finally:
        runner.remove_storage()
    assert list(here.iterdir()) == []


@pytest.mark.skipif(shutil.which("podman") is None, reason="podman is not installed")
def test_a_long_storage_path_keeps_the_socket_path_short(tmp_path: Path) -> None:
    directory = tmp_path / ("long" * 20) / "containers"
    runner = PodmanRunner(directory)
    try:
        assert runner.unusable() == ""
        settings = (directory / "storage.conf").read_text()
        runroot = next(line for line in settings.splitlines() if line.startswith("runroot")).partition('"')[2][:-1]
        assert len(runroot) < 40
        assert Path(runroot).stat().st_mode & 0o077 == 0
    finally:
        runner.remove_storage()
