"""Every tutorial runs top to bottom in a real kernel and shows what it showed when it was saved (nbval)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SANITIZERS = Path(__file__).with_name("sanitize.cfg")


def _nbval(path: Path, run: Path) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "WORKFLOW_DIR": str(run), "BATCH_NAME": "batch"}
    for name in ("OPERATOR_IN_DIR", "OPERATOR_OUT_DIR", "KAAPANA_NB_PROGRESS"):
        environ.pop(name, None)
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-sanitize-with", str(SANITIZERS)]
    command += ["-vv", "-p", "no:cacheprovider", "-W", "ignore", str(path)]
    return subprocess.run(command, cwd=path.parent, env=environ, capture_output=True, text=True, timeout=280)


@pytest.mark.notebooks
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_tutorial_shows_what_it_showed(path: Path, sample_run: Path, tmp_path: Path) -> None:
    run = tmp_path / sample_run.name
    shutil.copytree(sample_run, run)
    result = _nbval(path, run)
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]


@pytest.mark.notebooks
def test_a_changed_output_is_noticed(tmp_path: Path, sample_run: Path) -> None:
    path = tmp_path / "changed.ipynb"
    text = (ROOT / "notebooks" / "extract_study_id.ipynb").read_text()
    assert "6 of 6 succeeded" in text
    path.write_text(text.replace("6 of 6 succeeded", "5 of 6 succeeded"))
    run = tmp_path / sample_run.name
    shutil.copytree(sample_run, run)
    result = _nbval(path, run)
    assert result.returncode == 1
    assert "5 of 6 succeeded" in result.stdout
