"""podman works from any directory, and leaves nothing in the one it was started from, and no process."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import kaapana_nb
from kaapana_nb.clients.podman import PodmanRunner

pytestmark = pytest.mark.images


def runroot_of(directory: Path) -> Path:
    settings = (directory / "storage.conf").read_text()
    return Path(next(line for line in settings.splitlines() if line.startswith("runroot")).partition('"')[2][:-1])


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
        runroot = runroot_of(directory)
        assert len(str(runroot)) < 40
        assert runroot.stat().st_mode & 0o077 == 0
    finally:
        runner.remove_storage()


PROBE = """
import sys
from pathlib import Path
from kaapana_nb.clients.podman import PodmanRunner
print(PodmanRunner(Path(sys.argv[1])).unusable())
"""
NOBODY = "65534"


def processes_of(directory: Path) -> list[int]:
    """Processes that podman started with the settings below `directory`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"CONTAINERS_CONF={directory}/containers.conf".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


@pytest.fixture
def place_of_nobody() -> Iterator[Path]:
    """A directory that every user may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="knb-nobody-", dir="/tmp", ignore_cleanup_errors=True) as name:
        place = Path(name)
        place.chmod(0o777)
        yield place
        for pid in processes_of(place / "containers"):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(FileNotFoundError):  # skipped before podman was started
            shutil.rmtree(runroot_of(place / "containers"), ignore_errors=True)


@pytest.mark.skipif(shutil.which("podman") is None, reason="podman is not installed")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user for whom podman does not work")
def test_a_failed_rootless_probe_leaves_no_process(place_of_nobody: Path) -> None:
    become = ["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]
    source = Path(kaapana_nb.__file__).parents[1]
    environ = {"PATH": os.environ["PATH"], "HOME": str(place_of_nobody), "PYTHONPATH": str(source)}
    python = ["/usr/bin/python3", "-B", "-c"]
    can = subprocess.run([*become, *python, "import tomllib, kaapana_nb"], env=environ, check=False, cwd="/")
    if can.returncode != 0:
        pytest.skip("nobody may not read this clone, or /usr/bin/python3 is not 3.11 or newer")
    words = [*become, *python, PROBE, str(place_of_nobody / "containers")]
    probe = subprocess.run(words, env=environ, capture_output=True, text=True, check=False, cwd="/", timeout=120)
    assert probe.returncode == 0, probe.stderr
    if not probe.stdout.strip():
        pytest.skip("podman works for nobody here")
    assert processes_of(place_of_nobody / "containers") == []
