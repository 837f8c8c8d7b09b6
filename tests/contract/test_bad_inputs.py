"""Every bad input gives one clear error with its remedy: no traceback, nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from kaapana_nb.clients.credentials import Credentials
from kaapana_nb.emulator.registry import LocalRegistry

ROOT = Path(__file__).parents[2]
OTSU = ROOT / "notebooks" / "otsus_method.ipynb"
ALGORITHM = "from kaapana_nb import algorithm\n@algorithm\ndef one(image: list): ..."

pytestmark = pytest.mark.contract
Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def call(tmp_path: Path) -> Call:
    def run(*words: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "kaapana_nb", *map(str, words)]
        environ = {**os.environ, "HOME": str(tmp_path), **(env or {})}
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environ, timeout=120)

    return run


@pytest.fixture
def batch(sample_run: Path, tmp_path: Path) -> Path:
    """A copy of the sample batch's two smallest series."""
    run = tmp_path / "run"
    sizes = sorted((sum(1 for _ in d.rglob("*.dcm")), d) for d in (sample_run / "batch").iterdir())
    for _, directory in sizes[:2]:
        shutil.copytree(directory, run / "batch" / directory.name)
    return run


def notebook(tmp_path: Path, *sources: str) -> Path:
    document = new_notebook(cells=[new_code_cell(source) for source in sources])
    path = tmp_path / "bad.ipynb"
    path.write_text(nbformat.writes(document))
    return path


def one_error(result: subprocess.CompletedProcess[str], code: int, *texts: str) -> None:
    """One problem with its remedy, and the exit code."""
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.count("kaapana-nb: ") == 1
    assert result.stderr.count("  remedy: ") == 1
    assert len(result.stderr.splitlines()[-1]) > len("  remedy: ")
    for text in texts:
        assert text in result.stderr
    assert result.stdout == ""


def tree(directory: Path) -> set[Path]:
    return {path for path in directory.rglob("*") if "__pycache__" not in path.parts}


def test_a_missing_batch(call: Call, tmp_path: Path) -> None:
    one_error(call("run", OTSU, "--batch", tmp_path / "nowhere"), 1, "nowhere does not exist", "the run's directory")
    one_error(call("export", OTSU, "-o", tmp_path / "x", "--batch", tmp_path / "nowhere"), 1, "does not exist")
    assert not (tmp_path / "x").exists()


def test_a_missing_notebook(call: Call, batch: Path) -> None:
    one_error(call("run", "nowhere.ipynb", "--batch", batch), 1, "nowhere.ipynb")


def test_an_empty_element_is_told_at_once_and_the_rest_goes_on(call: Call, batch: Path) -> None:
    empty, whole = sorted((batch / "batch").iterdir())
    for path in (empty / "get-input-data").iterdir():
        path.unlink()
    result = call("run", OTSU, "--batch", batch)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    first = result.stderr.splitlines()[0]
    assert empty.name in first
    assert "is empty" in first
    assert "1 of 2 succeeded" in result.stdout
    assert (whole / "otsus-method" / f"{whole.name}.nrrd").is_file()
    assert not (empty / "otsus-method").exists()


def test_a_file_that_is_no_dicom_does_not_stop_the_series(call: Call, batch: Path) -> None:
    series = sorted((batch / "batch").iterdir())[0]
    (series / "get-input-data" / "0-notes.txt").write_text("no DICOM")
    result = call("run", OTSU, "--batch", batch)
    assert result.returncode == 0, result.stderr + result.stdout
    assert "2 of 2 succeeded" in result.stdout


def test_a_batch_without_any_dicom(call: Call, batch: Path) -> None:
    for path in batch.rglob("*.dcm"):
        path.write_bytes(b"no DICOM")
    before = tree(batch)
    one_error(call("run", OTSU, "--batch", batch), 1, "no DICOM")
    assert tree(batch) == before


def test_no_algorithm(call: Call, batch: Path, tmp_path: Path) -> None:
    one_error(call("run", notebook(tmp_path, "x = 1"), "--batch", batch), 1, "has no algorithm", "@algorithm")


def test_two_algorithms(call: Call, batch: Path, tmp_path: Path) -> None:
    path = notebook(tmp_path, ALGORITHM, ALGORITHM.replace("one", "two"))
    one_error(call("run", path, "--batch", batch), 1, "2 algorithms", "one (cell 1) and two (cell 2)")


def test_a_syntax_error(call: Call, batch: Path, tmp_path: Path) -> None:
    one_error(call("run", notebook(tmp_path, "x = 1\ny = ("), "--batch", batch), 1, "cell 1, line 2")


def test_an_unknown_parameter(call: Call, batch: Path) -> None:
    before = tree(batch)
    one_error(call("run", OTSU, "--batch", batch, "-p", "insidee=1"), 2, "'insidee'", "inside, outside")
    one_error(call("run", OTSU, "--batch", batch, "-p", "inside=one"), 2, "inside", "'one'", "whole number")
    one_error(call("run", OTSU, "--batch", batch, "-p", "inside"), 2, "NAME=VALUE")
    assert tree(batch) == before


def test_a_read_only_output_directory(call: Call, batch: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kaapana_nb", "run", str(OTSU), "--batch", str(batch)]
    if os.geteuid() == 0:  # root may write anywhere but on a read-only mount
        script = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@"'
        command = ["unshare", "--mount", "sh", "-c", script, "sh", str(batch), *command]
        if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode != 0:
            pytest.skip("this machine lets root make no mount namespace")
    else:
        for path in [batch, *batch.rglob("*")]:
            path.chmod(0o555)
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    one_error(result, 1, "cannot be written", "writable")


def test_a_registry_that_is_down(call: Call, batch: Path, tmp_path: Path) -> None:
    result = call("ship", OTSU, "--batch", batch, "--push", "localhost:1", "-o", tmp_path / "x")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "localhost:1" in result.stderr
    assert result.stderr.count("  remedy: ") == 1
    assert "[2] export" not in result.stderr
    assert not (tmp_path / "x").exists()


@pytest.mark.skipif(shutil.which("docker-registry") is None, reason="docker-registry is not installed")
def test_a_registry_that_refuses_the_password(call: Call, batch: Path, tmp_path: Path) -> None:
    with LocalRegistry(tmp_path / "registry", credentials=Credentials(username="u", password="right-one")) as registry:
        env = {"KAAPANA_NB_REGISTRY_USER": "u", "KAAPANA_NB_REGISTRY_PASSWORD": "wrong-secret"}
        words = ("ship", OTSU, "--batch", batch, "--push", registry.host, "-o", tmp_path / "x")
        result = call(*words, env=env)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "wrong-secret" not in result.stderr
    assert "password" in result.stderr
    assert result.stderr.count("  remedy: ") == 1
    assert not (tmp_path / "x").exists()


PRINTS = """
from kaapana_nb import Batch, BatchElement, algorithm, run

print("a cell prints")

@algorithm
def talks(element: BatchElement) -> dict:
    print("a worker prints")
    return {}

run(talks, Batch.from_environ())
"""


def test_json_is_json_whatever_the_notebook_prints(call: Call, batch: Path, tmp_path: Path) -> None:
    result = call("run", notebook(tmp_path, PRINTS), "--batch", batch, "--json")
    assert result.returncode == 0, result.stderr
    rows = json.loads(result.stdout)["elements"]
    assert [row["status"] for row in rows] == ["ok", "ok"]
    assert result.stderr.count("a cell prints") == 1
    assert result.stderr.count("a worker prints") == 2


SHOWS = """
from kaapana_nb import Batch, BatchElement, algorithm, run

@algorithm
def shows(element: BatchElement, *, level: int = 1) -> dict:
    return {"level": level, "files": len(element.files())}

run(shows, Batch.from_environ())
"""


def test_a_shell_is_no_form_and_a_batch_names_its_own_input(call: Call, batch: Path, tmp_path: Path) -> None:
    for series in (batch / "batch").iterdir():
        (series / "get-input-data").rename(series / "initial-input")
    result = call("run", notebook(tmp_path, SHOWS), "--batch", batch, "--json", env={"LEVEL": "7"})
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["parameters"] == {"level": 1}
    result = call("run", notebook(tmp_path, SHOWS), "--batch", batch, "--json", "-p", "level=3", env={"LEVEL": "7"})
    assert json.loads(result.stdout)["parameters"] == {"level": 3}


def test_an_execution_leaves_nothing_in_the_temporary_directory(call: Call, batch: Path, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="k") as name:
        scratch = Path(name)
        dead = scratch / "knb-run-999999999-left"
        dead.mkdir()
        result = call("run", notebook(tmp_path, PRINTS), "--batch", batch, env={"TMPDIR": name})
        assert result.returncode == 0, result.stderr
        assert list(scratch.iterdir()) == []


def test_a_temporary_directory_with_a_long_name(call: Call, batch: Path, tmp_path: Path) -> None:
    scratch = tmp_path / ("long" * 20)
    scratch.mkdir()
    result = call("run", notebook(tmp_path, PRINTS), "--batch", batch, env={"TMPDIR": str(scratch)})
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("command", ["export", "ship"])
def test_an_export_directory_that_cannot_be_written(call: Call, batch: Path, tmp_path: Path, command: str) -> None:
    (tmp_path / "file").write_text("in the way")
    words = (command, OTSU, "-o", tmp_path / "file", *(("--batch", batch) if command == "ship" else ()))
    result = call(*words)
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert "internal error" not in result.stderr
    assert str(tmp_path / "file") in result.stderr
    assert result.stderr.count("  remedy: ") == 1
    assert (tmp_path / "file").read_text() == "in the way"


def test_an_archive_that_cannot_be_written_is_told_before_the_build(call: Call, batch: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    archive = tmp_path / "file" / "image.tar"
    result = call("ship", OTSU, "--batch", batch, "-o", tmp_path / "x", "--archive", archive)
    assert result.returncode == 2, result.stderr
    assert "[2] export" not in result.stderr
    assert not (tmp_path / "x").exists()


def test_two_notebooks_want_two_directories(call: Call, tmp_path: Path) -> None:
    assert call("export", OTSU, "-o", tmp_path / "x").returncode == 0
    other = OTSU.with_name("extract_study_id.ipynb")
    result = call("export", other, "-o", tmp_path / "x")
    one_error(result, 2, "otsus-method", "-o")


def test_debug_shows_the_traceback(call: Call, tmp_path: Path) -> None:
    assert "Traceback" in call("--debug", "run", OTSU, "--batch", tmp_path / "nowhere").stderr
