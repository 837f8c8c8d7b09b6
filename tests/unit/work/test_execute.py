"""Notebook execution with a real kernel: what a container does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
import SimpleITK as sitk

from kaapana_nb.data.batch import Batch
from kaapana_nb.errors import BatchError, ContractError, NotebookError, ParameterError
from kaapana_nb.work.execute import environment_for, execute, remove_output

pytestmark = pytest.mark.notebooks
Write = Callable[..., Path]

IMPORTS = "import SimpleITK as sitk\nfrom kaapana_nb import Batch, BatchElement, algorithm, run"
THRESHOLD = """
@algorithm
def threshold(image: sitk.Image, *, level: int = 0) -> sitk.Image:
    return image > level
"""
RUN = "report = run(threshold, Batch.from_environ())\nreport"


def _execute(path: Path, run: Path, **options: object):  # type: ignore[no-untyped-def]
    lines: list[str] = []
    environ = environment_for(run, "batch", output_name="threshold", **options)  # type: ignore[arg-type]
    return execute(path, environ, log=lines.append), lines


def test_the_executed_notebook_lies_beside_the_results(notebook: Write, run_dir: Path) -> None:
    path = notebook(IMPORTS, THRESHOLD, ("raise RuntimeError('for my eyes')", "explore"), RUN)
    result, _ = _execute(path, run_dir, parameters={"level": "100"})
    assert result.exit_code == 0
    assert result.report is not None
    assert result.report.parameters == {"level": 100}
    executed = nbformat.read(run_dir / "threshold" / "example.ipynb", as_version=4)
    assert not any("for my eyes" in cell.source for cell in executed.cells)
    assert "3 of 3 succeeded" in str(executed.cells[-1].outputs)
    image = sitk.ReadImage(str(run_dir / "batch" / "1.2.1" / "threshold" / "1.2.1.nrrd"))
    assert sitk.GetArrayFromImage(image).sum() == 27


def test_a_failed_element_is_exit_code_1_and_keeps_the_rest(notebook: Write, run_dir: Path) -> None:
    next((run_dir / "batch" / "1.2.2" / "get-input-data").iterdir()).write_bytes(b"no DICOM")
    for path in (run_dir / "batch" / "1.2.2" / "get-input-data").iterdir():
        path.write_bytes(b"no DICOM")
    result, _ = _execute(notebook(IMPORTS, THRESHOLD, RUN), run_dir)
    assert result.exit_code == 1
    assert (run_dir / "batch" / "1.2.1" / "threshold" / "1.2.1.nrrd").is_file()
    assert not (run_dir / "batch" / "1.2.2" / "threshold" / "1.2.2.nrrd").exists()


def test_a_failed_cell_is_named_and_the_notebook_kept(notebook: Write, run_dir: Path) -> None:
    path = notebook(IMPORTS, ("x = 1", "explore"), "raise ValueError('Planted^Name is not allowed')")
    with pytest.raises(NotebookError, match=r"Cell 3 of example\.ipynb failed: ValueError") as caught:
        _execute(path, run_dir)
    assert "Planted" not in caught.value.problem
    executed = nbformat.read(run_dir / "threshold" / "example.ipynb", as_version=4)
    assert executed.cells[-1].outputs[-1].output_type == "error"
    assert len(executed.cells) == 2


def test_a_parameters_cell_is_set_from_the_environment(notebook: Write, run_dir: Path) -> None:
    path = notebook(
        "import json, os", ("title = 'none'\ncount = 1", "parameters"), "assert (title, count) == ('A b', 5)"
    )
    result, _ = _execute(path, run_dir, parameters={"title": "A b", "count": "5"})
    assert result.exit_code == 0
    with pytest.raises(NotebookError, match="AssertionError"):
        _execute(path, run_dir, parameters={"title": "A b", "count": "6"})


def test_an_empty_batch_is_nothing_to_do(notebook: Write, tmp_path: Path) -> None:
    (tmp_path / "empty" / "batch").mkdir(parents=True)
    result, lines = _execute(notebook(IMPORTS, THRESHOLD, RUN), tmp_path / "empty")
    assert result.exit_code == 126
    assert "nothing to do" in lines[0]


def test_wrong_environments_are_told_before_a_kernel_starts(notebook: Write, run_dir: Path, tmp_path: Path) -> None:
    path = notebook(IMPORTS, THRESHOLD, RUN)
    start = time.monotonic()
    with pytest.raises(ContractError, match="WORKFLOW_DIR and BATCH_NAME are not set"):
        execute(path, {}, log=print)
    with pytest.raises(BatchError, match="does not exist"):
        _execute(path, tmp_path / "missing")
    with pytest.raises(ParameterError, match="level"):
        _execute(path, run_dir, parameters={"level": "high"})
    assert time.monotonic() - start < 5
    assert not (run_dir / "threshold").exists()


def test_own_results_are_removed_and_nothing_else(run_dir: Path) -> None:
    element = run_dir / "batch" / "1.2.1"
    for name in ("threshold", "other"):
        (element / name).mkdir()
        (element / name / "result.json").write_text("{}")
    remove_output(Batch.open(run_dir).with_output("threshold"))
    assert sorted(path.name for path in element.iterdir()) == ["get-input-data", "other"]
    (element / "threshold").symlink_to(element / "other")
    with pytest.raises(BatchError, match="link"):
        remove_output(Batch.open(run_dir).with_output("threshold"))
    assert (element / "other" / "result.json").exists()


SLOW = """
import time
@algorithm
def threshold(image: sitk.Image) -> sitk.Image:
    time.sleep(0.1)
    return sitk.Resample(image, [300, 300, 300])
"""


@pytest.mark.parametrize("delay", [2.2, 3.0, 3.4, 3.8])
def test_sigkill_leaves_no_partial_result_and_no_process(notebook: Write, run_dir: Path, delay: float) -> None:
    path = notebook(IMPORTS, SLOW, "run(threshold, Batch.from_environ(), jobs=2)")
    marker = f"kill-{os.getpid()}-{delay}"
    command = [sys.executable, "-m", "kaapana_nb", "run", str(path), "--batch", str(run_dir)]
    process = subprocess.Popen(command, env={**os.environ, "KNB_MARKER": marker}, stderr=subprocess.DEVNULL)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 20
    while _with_marker(marker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert _with_marker(marker) == []
    for result in run_dir.glob("batch/*/threshold/*"):
        assert result.name == f"{result.parents[1].name}.nrrd"
        assert sitk.ReadImage(str(result)).GetSize() == (300, 300, 300)


def test_sigterm_ends_the_execution_as_the_platform_asks(notebook: Write, run_dir: Path) -> None:
    path = notebook(IMPORTS, SLOW.replace("0.1", "60"), "run(threshold, Batch.from_environ(), jobs=2)")
    marker = f"term-{os.getpid()}"
    environ = environment_for(run_dir, "batch", output_name="threshold", base={**os.environ, "KNB_MARKER": marker})
    command = [sys.executable, "-m", "kaapana_nb", "execute", str(path)]
    process = subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL)
    executed = run_dir / "threshold" / "example.ipynb"
    deadline = time.monotonic() + 60
    while len(_with_marker(marker)) < 4 and time.monotonic() < deadline:  # command, kernel, fork server, workers
        time.sleep(0.1)
    process.terminate()
    assert process.wait(timeout=30) == 128 + signal.SIGTERM
    while _with_marker(marker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert _with_marker(marker) == []
    assert nbformat.read(executed, as_version=4).cells


def test_sigterm_is_heard_as_process_1_of_a_container(notebook: Write, run_dir: Path) -> None:
    namespace = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets this user make no process namespace")
    path = notebook(IMPORTS, SLOW.replace("0.1", "60"), "run(threshold, Batch.from_environ(), jobs=1)")
    environ = environment_for(run_dir, "batch", output_name="threshold")
    command = [*namespace, sys.executable, "-m", "kaapana_nb", "execute", str(path)]
    outer = subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL)
    executed = run_dir / "threshold" / "example.ipynb"
    deadline = time.monotonic() + 60
    while not executed.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    (first,) = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
    os.kill(int(first), signal.SIGTERM)
    assert outer.wait(timeout=30) == 128 + signal.SIGTERM


def _with_marker(marker: str) -> list[int]:
    """Processes whose environment holds the marker."""
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                environ = (directory / "environ").read_bytes()
                state = (directory / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if f"KNB_MARKER={marker}".encode() in environ and state != "Z":
                found.append(int(directory.name))
    return found
