"""podman works from any directory, and leaves nothing in the one it was started from."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from kaapana_nb.clients.podman import PodmanRunner

if TYPE_CHECKING:
    from pathlib import Path

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
