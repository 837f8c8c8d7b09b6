"""``--in`` and ``--out``: a name that cannot be used is a wrong call, and the remedy names the flag."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kaapana_nb.cli.main import main

OTSU = str(Path(__file__).parents[2] / "notebooks" / "otsus_method.ipynb")


@pytest.fixture
def run_dir(sample_run: Path, tmp_path: Path) -> Path:
    """One series of the sample batch."""
    series = next((sample_run / "batch").iterdir())
    shutil.copytree(series, tmp_path / "run" / "batch" / series.name)
    return tmp_path / "run"


def files(run_dir: Path) -> set[Path]:
    return set(run_dir.rglob("*"))


def call(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    """Exit code, problem and remedy."""
    code = main([str(word) for word in words])
    problem, _, remedy = capsys.readouterr().err.partition("  remedy: ")
    return code, problem, remedy


@pytest.mark.parametrize("flag", ["--in", "--out"])
@pytest.mark.parametrize("name", ["../x", "", "a/b"])
def test_value_that_is_no_name(run_dir: Path, capsys: pytest.CaptureFixture[str], flag: str, name: str) -> None:
    before = files(run_dir)
    code, problem, remedy = call(capsys, "run", OTSU, "--batch", run_dir, flag, name)
    assert code == 2
    assert f"{flag} is {name!r}" in problem
    assert f"{flag} NAME" in remedy
    assert files(run_dir) == before


@pytest.mark.parametrize(
    "words",
    [
        ("--out", "get-input-data"),
        ("--in", "other", "--out", "other"),
        ("--in", "otsus-method"),
    ],
)
def test_input_that_results_would_replace(
    run_dir: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    before = files(run_dir)
    code, problem, remedy = call(capsys, "run", OTSU, "--batch", run_dir, *words)
    assert code == 2
    assert "Input and output are both" in problem
    assert "--in NAME" in remedy
    assert "--out NAME" in remedy
    assert files(run_dir) == before


def test_results_of_a_run_are_never_the_input_that_is_guessed(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With two usual inputs, --out must not turn the guess to the second one and replace the first."""
    for series in (run_dir / "batch").iterdir():
        shutil.copytree(series / "get-input-data", series / "initial-input")
    before = files(run_dir)
    assert call(capsys, "run", OTSU, "--batch", run_dir, "--out", "get-input-data")[0] == 2
    assert files(run_dir) == before


def test_ship_names_its_own_flag(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("ship", OTSU, "--batch", run_dir, "-o", tmp_path / "x", "--in")
    for name in ("../x", "otsus-method"):
        code, _, remedy = call(capsys, *words, name)
        assert code == 2
        assert "--in NAME" in remedy
    assert not (tmp_path / "x").exists()


def test_no_clear_input(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for series in (run_dir / "batch").iterdir():
        (series / "get-input-data").rename(series / "one")
        (series / "two").mkdir()
    code, problem, remedy = call(capsys, "run", OTSU, "--batch", run_dir)
    assert code == 1
    assert "one, two" in problem
    assert "--in NAME" in remedy


@pytest.mark.parametrize("flag", ["--in", "--input"])
@pytest.mark.parametrize("command", ["ls", "check"])
def test_batch_takes_the_same_flag(run_dir: Path, capsys: pytest.CaptureFixture[str], command: str, flag: str) -> None:
    for series in (run_dir / "batch").iterdir():
        (series / "get-input-data").rename(series / "one")
        (series / "two").mkdir()
    assert main(["batch", command, str(run_dir), flag, "one"]) == 0
    code, problem, remedy = call(capsys, "batch", command, run_dir, flag, "../one")
    assert code == 2
    assert "--in is '../one'" in problem
    assert "--in NAME" in remedy
