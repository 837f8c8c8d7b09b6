from __future__ import annotations

import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pydicom
import pytest
import SimpleITK as sitk

from kaapana_nb.data.batch import Batch, BatchElement
from kaapana_nb.errors import AlgorithmError, BatchError, ParameterError, UsageError
from kaapana_nb.work.algorithm import algorithm
from kaapana_nb.work.report import RunReport, load_report
from kaapana_nb.work.run import run


@algorithm
def threshold(image: sitk.Image, *, level: int = 0) -> sitk.Image:
    """Voxels above a level."""
    return image > level


@algorithm
def study(datasets: list[pydicom.Dataset]) -> dict[str, Any]:
    return {"study": str(datasets[0].StudyInstanceUID), "files": len(datasets)}


@algorithm
def fails_on_second(element: BatchElement) -> dict[str, Any]:
    if element.name == "1.2.2":
        header = pydicom.dcmread(element.files()[0], stop_before_pixels=True)
        raise ValueError(f"cannot handle {header.PatientName} ({header.PatientID})")
    return {}


@algorithm
def dies_on_second(element: BatchElement) -> dict[str, Any]:
    if element.name == "1.2.2":
        os.kill(os.getpid(), signal.SIGKILL)
    return {"alive": True}


@algorithm
def count(batch: Batch) -> dict[str, int]:
    return {element.name: len(element.files()) for element in batch}


def test_an_algorithm_stays_a_function(run_dir: Path) -> None:
    image = Batch.open(run_dir)[0].image()
    mask = threshold(image, level=100)
    assert sitk.GetArrayFromImage(mask).sum() == 27
    assert threshold.__doc__ == "Voxels above a level."


def test_results_lie_where_the_platform_expects_them(run_dir: Path) -> None:
    report = run(threshold, Batch.open(run_dir), level=100, jobs=2)
    assert report.ok
    for uid in ("1.2.1", "1.2.2", "1.2.3"):
        path = run_dir / "batch" / uid / "threshold" / f"{uid}.nrrd"
        image = sitk.ReadImage(str(path))
        assert sitk.GetArrayFromImage(image).sum() == 27
        assert image.GetSpacing() == (1.0, 1.0, 2.0)
    row = report.elements[0]
    assert row.outputs == ("batch/1.2.1/threshold/1.2.1.nrrd",)
    assert row.seconds > 0
    assert row.peak_mib is not None
    assert row.peak_mib > 1
    assert load_report(run_dir / "threshold" / "run-report.json").elements == report.elements


def test_an_environment_names_directory_and_parameters(run_dir: Path) -> None:
    environ = {"WORKFLOW_DIR": str(run_dir), "BATCH_NAME": "batch", "OPERATOR_OUT_DIR": "mine", "LEVEL": "600"}
    report = run(threshold, Batch.from_environ(environ), jobs=1)
    assert report.parameters == {"level": 600}
    image = sitk.ReadImage(str(run_dir / "batch" / "1.2.1" / "mine" / "1.2.1.nrrd"))
    assert sitk.GetArrayFromImage(image).sum() == 0


def test_one_failure_is_one_row_and_names_no_patient(run_dir: Path) -> None:
    report = run(fails_on_second, Batch.open(run_dir), jobs=2)
    assert [row.status for row in report.elements] == ["ok", "failed", "ok"]
    error = report.elements[1].error
    assert error.startswith("ValueError: cannot handle")
    assert "fails_on_second, line" in error
    assert "Planted" not in error
    assert "4711" not in error
    assert report.exit_code == 1


def test_a_dead_worker_costs_one_element(run_dir: Path) -> None:
    report = run(dies_on_second, Batch.open(run_dir), jobs=2)
    assert [row.status for row in report.elements] == ["ok", "failed", "ok"]
    assert "worker process died" in report.elements[1].error


def test_a_failure_removes_the_earlier_result(run_dir: Path) -> None:
    stale = run_dir / "batch" / "1.2.2" / "fails-on-second" / "1.2.2.json"
    stale.parent.mkdir()
    stale.write_text("{}")
    kept = stale.with_name("1.2.22.json")
    kept.write_text("{}")
    run(fails_on_second, Batch.open(run_dir), jobs=1)
    assert not stale.exists()
    assert kept.exists()


def test_an_element_without_input_fails_alone(run_dir: Path) -> None:
    for path in (run_dir / "batch" / "1.2.3" / "get-input-data").iterdir():
        path.unlink()
    report = run(study, Batch.open(run_dir), jobs=1)
    assert [row.status for row in report.elements] == ["ok", "ok", "failed"]
    assert "is empty" in report.elements[2].error
    assert report.elements[2].remedy


def test_a_batch_level_algorithm_runs_once(run_dir: Path) -> None:
    report = run(count, Batch.open(run_dir))
    assert [row.element for row in report.elements] == ["(batch)"]
    assert json.loads((run_dir / "count" / "count.json").read_text()) == {"1.2.1": 3, "1.2.2": 3, "1.2.3": 3}


def test_any_executor_serves(run_dir: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        report = run(study, Batch.open(run_dir), executor=pool)
    assert report.ok
    assert json.loads((run_dir / "batch" / "1.2.1" / "study" / "1.2.1.json").read_text())["files"] == 3


def test_wrong_calls_are_refused_before_anything_runs(run_dir: Path) -> None:
    batch = Batch.open(run_dir)
    with pytest.raises(UsageError, match="algorithm"):
        run(lambda image: image, batch)  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="levle"):
        run(threshold, batch, levle=1)
    with pytest.raises(UsageError, match="jobs"):
        run(threshold, batch, jobs=0)
    assert not (run_dir / "threshold").exists()


def test_what_cannot_travel_is_told(run_dir: Path) -> None:
    lock = threading.Lock()

    @algorithm
    def locked(element: BatchElement) -> dict[str, Any]:
        with lock:
            return {}

    with pytest.raises(AlgorithmError, match="cannot be sent"):
        run(locked, Batch.open(run_dir))


def test_a_file_in_the_way_of_the_output_is_told(run_dir: Path) -> None:
    (run_dir / "threshold").write_text("in the way")
    with pytest.raises(BatchError, match="cannot be written"):
        run(threshold, Batch.open(run_dir))


def test_a_report_comes_back_equal_and_shows_itself(run_dir: Path) -> None:
    report = run(fails_on_second, Batch.open(run_dir), jobs=1)
    assert RunReport.from_json(json.loads(json.dumps(report.to_json()))) == report
    assert "2 of 3 succeeded" in str(report)
    html = report._repr_html_()
    assert html.count("<tr>") == 4
    assert list(report.to_frame()["status"]) == ["ok", "failed", "ok"]


@algorithm
def says_dict(element: BatchElement) -> dict[str, int]:
    return None if element.name == "1.2.1" else ["x"]  # type: ignore[return-value]


@algorithm
def may_leave_out(element: BatchElement) -> dict[str, int] | None:
    return None if element.name == "1.2.1" else {"x": 1}


def test_a_result_must_be_what_was_declared(run_dir: Path) -> None:
    report = run(says_dict, Batch.open(run_dir), jobs=1)
    assert [row.error for row in report.elements] == [
        "The algorithm returned NoneType; dict was declared.",
        "The algorithm returned list; dict was declared.",
        "The algorithm returned list; dict was declared.",
    ]
    report = run(may_leave_out, Batch.open(run_dir), jobs=1)
    assert report.ok
    assert [len(row.outputs) for row in report.elements] == [0, 1, 1]


def test_a_long_error_keeps_the_table_readable(run_dir: Path) -> None:
    @algorithm
    def talks(element: BatchElement) -> dict[str, Any]:
        raise ValueError("word " * 200)

    report = run(talks, Batch.open(run_dir), jobs=1)
    assert max(map(len, report.table().splitlines())) < 250
    assert len(report.elements[0].error) > 300


def test_html_of_a_report_escapes_what_an_algorithm_raised(run_dir: Path) -> None:
    @algorithm
    def hostile(element: BatchElement) -> dict[str, Any]:
        raise ValueError("<img src=x onerror=alert(1)>")

    assert "<img" not in run(hostile, Batch.open(run_dir), jobs=1)._repr_html_()
