"""The sample batch: layout, geometry, identifiers, and what happens when it is made twice or half."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from kaapana_nb.emulator import sample, sample_headers
from kaapana_nb.emulator.sample import STAMP, ensure_sample, write_conf
from kaapana_nb.emulator.sample_headers import SERIES, SampleSeries
from kaapana_nb.emulator.sample_volumes import load_volume
from kaapana_nb.errors import BatchError
from kaapana_nb.settings import Settings


def settings_in(home: Path) -> Settings:
    return Settings(home=home, workspace=home / "workspace", jobs=1)


def tree(directory: Path) -> dict[str, tuple[str, int]]:
    """Every file below `directory` with its hash and the time it was changed."""
    return {
        str(path.relative_to(directory)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def contents(directory: Path) -> dict[str, str]:
    return {name: digest for name, (digest, _) in tree(directory).items()}


def input_dir(run: Path, series: SampleSeries) -> Path:
    return run / "batch" / series.series_uid / "get-input-data"


def silent(_: object) -> None:
    return


@pytest.fixture
def own_run(sample_run: Path, tmp_path: Path) -> Path:
    """A copy of the sample run that a test may change."""
    run = settings_in(tmp_path / "home").sample_run
    shutil.copytree(sample_run, run)
    return run


def test_layout_is_the_platforms(sample_run: Path) -> None:
    assert sorted(path.name for path in (sample_run / "batch").iterdir()) == sorted(s.series_uid for s in SERIES)
    counts = []
    for series_dir in (sample_run / "batch").iterdir():
        assert [path.name for path in series_dir.iterdir()] == ["get-input-data"]
        files = sorted((series_dir / "get-input-data").iterdir())
        for path in files:
            dataset = pydicom.dcmread(path, stop_before_pixels=True)
            assert path.name == f"{dataset.SOPInstanceUID}.dcm"
            assert dataset.SeriesInstanceUID == series_dir.name
            assert dataset.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
            assert pydicom.uid.UID(dataset.SOPInstanceUID).is_valid
        counts.append(len(files))
    assert len(counts) >= 4
    assert sum(count >= 20 for count in counts) >= 2
    assert {series.modality for series in SERIES} == {"CT", "MR"}


@pytest.mark.parametrize("series", SERIES, ids=lambda series: series.key)
def test_simpleitk_reads_the_source_volume_back(sample_run: Path, series: SampleSeries) -> None:
    source = load_volume(series.volume)
    directory = input_dir(sample_run, series)
    image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(directory)))
    voxels = sitk.GetArrayFromImage(image)
    # ITK sorts along the normal of the slices, whichever way the source counts.
    normal = np.cross(source.row_direction, source.column_direction)
    positions = np.array(source.positions_mm[series.first : series.end])
    order = np.argsort(positions @ normal)
    assert np.array_equal(voxels, source.voxels[series.first : series.end][order])
    assert image.GetSpacing()[:2] == pytest.approx(source.spacing_mm[:2], abs=1e-7)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    assert direction[:, 0] == pytest.approx(np.array(source.row_direction), abs=1e-7)
    assert direction[:, 1] == pytest.approx(np.array(source.column_direction), abs=1e-7)
    assert image.GetOrigin() == pytest.approx(tuple(positions[order[0]]), abs=1e-6)
    if series.volume != "brain3":  # ITK lays a straight box over oblique positions that were rounded to 0.1 mm
        last = image.TransformIndexToPhysicalPoint((0, 0, len(positions) - 1))
        assert last == pytest.approx(tuple(positions[order[-1]]), abs=1e-6)


@pytest.mark.parametrize(("name", "voxels"), [("lung1", 837), ("lung2", 24644), ("brain1", 4137), ("brain2", 453)])
def test_expert_labels_lie_on_their_volumes(name: str, voxels: int) -> None:
    label = sitk.ReadImage(Path(sample.__file__).parent / "sample_data" / f"{name}_label.nrrd")
    source = load_volume(name)
    array = sitk.GetArrayFromImage(label)
    assert array.shape == source.voxels.shape
    assert label.GetOrigin() == pytest.approx(source.positions_mm[0], abs=1e-6)
    assert np.count_nonzero(array) == voxels  # every voxel of the expert's: none was cut off by the selection


def test_every_patient_is_planted(sample_run: Path) -> None:
    for series in SERIES:
        path = next(input_dir(sample_run, series).iterdir())
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        study = series.study
        assert str(dataset.PatientName) == study.patient_name
        assert dataset.PatientID == study.patient_id
        assert dataset.OtherPatientIDsSequence[0].PatientID == study.other_patient_id
        assert dataset.PatientBirthDate == study.birth_date
        assert dataset.AccessionNumber == study.accession_number
        assert dataset.InstitutionName == study.institution
        assert str(dataset.ReferringPhysicianName) == study.referring_physician
        assert str(dataset.OperatorsName) == study.operator
    names = [series.study.patient_name for series in SERIES]
    assert any("ü" in name for name in names)
    assert any(name.count("=") == 2 for name in names)


def test_two_series_share_patient_study_and_frame_of_reference(sample_run: Path) -> None:
    shared: dict[tuple[str, str, str], set[str]] = {}
    for series in SERIES:
        dataset = pydicom.dcmread(next(input_dir(sample_run, series).iterdir()), stop_before_pixels=True)
        key = (dataset.PatientID, dataset.StudyInstanceUID, dataset.FrameOfReferenceUID)
        shared.setdefault(key, set()).add(dataset.SeriesInstanceUID)
    assert sorted(len(uids) for uids in shared.values()) == [1, 1, 1, 1, 2]


def test_nothing_of_the_originals_headers_is_left(sample_run: Path) -> None:
    series = next(series for series in SERIES if series.volume == "brain3")
    for path in input_dir(sample_run, series).iterdir():
        data = path.read_bytes()
        assert b"123565" not in data  # PatientID of the original
        assert b"12432" not in data  # part of all its UIDs
        assert b"200103" not in data  # month of all its dates
        dataset = pydicom.dcmread(path)
        assert dataset.EchoTime == 22
        assert dataset.SpacingBetweenSlices == 2  # what the scanner wrote, although the slices lie 7 mm apart


def test_dciodvfy_finds_no_error(sample_run: Path) -> None:
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy (Debian's dicom3tools) is not installed")
    for series in SERIES:
        for path in sorted(input_dir(sample_run, series).iterdir())[:2]:
            report = subprocess.run([program, str(path)], capture_output=True, text=True, check=False).stderr
            assert [line for line in report.splitlines() if line.startswith("Error")] == []
            assert f"{series.modality}Image" in report


def test_second_call_does_nothing_and_is_fast(own_run: Path) -> None:
    result = own_run / "batch" / SERIES[0].series_uid / "otsus-method" / "mask.nrrd"
    result.parent.mkdir()
    result.write_bytes(b"a result")
    before = tree(own_run)
    said: list[object] = []
    start = time.perf_counter()
    assert ensure_sample(settings_in(own_run.parents[1]), log=said.append) == own_run
    assert time.perf_counter() - start < 0.05
    assert tree(own_run) == before
    assert said == []


def test_same_bytes_every_time(sample_run: Path, tmp_path: Path) -> None:
    again = ensure_sample(settings_in(tmp_path), log=silent)
    assert contents(again) == contents(sample_run)
    assert [path.name for path in again.parent.iterdir() if path.name != ".lock"] == [again.name]


def test_an_older_sample_is_replaced_and_results_stay(own_run: Path, sample_run: Path) -> None:
    stamp = json.loads((own_run / STAMP).read_text())
    gone = own_run / "batch" / "2.25.1"
    kept = own_run / "batch" / "2.25.2"
    for directory in (gone, kept):
        (directory / "get-input-data").mkdir(parents=True)
        (directory / "get-input-data" / "2.25.3.dcm").write_bytes(b"of the older sample")
    (kept / "otsus-method").mkdir()
    stamp = {"version": "older", "series": {**stamp["series"], "2.25.1": 1, "2.25.2": 1}}
    (own_run / STAMP).write_text(json.dumps(stamp))
    result = own_run / "batch" / SERIES[0].series_uid / "otsus-method" / "mask.nrrd"
    result.parent.mkdir()
    result.write_bytes(b"a result")
    next(input_dir(own_run, SERIES[1]).iterdir()).write_bytes(b"not what it was")

    ensure_sample(settings_in(own_run.parents[1]), log=silent)

    assert result.read_bytes() == b"a result"
    assert [path.name for path in kept.iterdir()] == ["otsus-method"]
    assert not gone.exists()
    result.unlink()
    assert contents(own_run) == contents(sample_run)


def test_a_missing_instance_is_put_back(own_run: Path, sample_run: Path) -> None:
    next(input_dir(own_run, SERIES[2]).iterdir()).unlink()
    ensure_sample(settings_in(own_run.parents[1]), log=silent)
    assert contents(own_run) == contents(sample_run)


def test_a_directory_of_someone_else_is_left_alone(tmp_path: Path) -> None:
    run = settings_in(tmp_path).sample_run
    run.mkdir(parents=True)
    (run / "thesis.txt").write_text("mine")
    with pytest.raises(BatchError, match="not a sample batch"):
        ensure_sample(settings_in(tmp_path), log=silent)
    assert contents(run.parent) == {
        ".lock": hashlib.sha256().hexdigest(),
        f"{run.name}/thesis.txt": hashlib.sha256(b"mine").hexdigest(),
    }


@pytest.mark.parametrize("stamp", ["", "[]", '{"series": 1}', '{"version": "x", "series": {"../../etc": 1}}'])
def test_a_broken_stamp_counts_as_none(own_run: Path, stamp: str) -> None:
    (own_run / STAMP).write_text(stamp)
    with pytest.raises(BatchError, match="not a sample batch"):
        ensure_sample(settings_in(own_run.parents[1]), log=silent)


def test_an_error_in_the_middle_leaves_no_half_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = sample_headers.instance, []

    def full_disk(*arguments: object) -> pydicom.Dataset:
        calls.append(1)
        if len(calls) > 40:
            raise OSError(28, os.strerror(28))
        return real(*arguments)

    monkeypatch.setattr(sample_headers, "instance", full_disk)
    with pytest.raises(BatchError, match="No space left"):
        ensure_sample(settings_in(tmp_path), log=silent)
    assert [path.name for path in settings_in(tmp_path).sample_run.parent.iterdir()] == [".lock"]


def test_a_killed_process_leaves_no_half_sample(sample_run: Path, tmp_path: Path) -> None:
    run = settings_in(tmp_path).sample_run
    process = multiprocessing.get_context("spawn").Process(target=ensure_sample, args=(settings_in(tmp_path),))
    process.start()
    deadline = time.monotonic() + 30
    while not list(run.parent.glob(".making-*/batch/*/get-input-data/*.dcm")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    assert not run.exists()
    ensure_sample(settings_in(tmp_path), log=silent)
    assert contents(run) == contents(sample_run)
    assert not list(run.parent.glob(".making-*"))


def test_two_processes_at_once_make_one_sample(sample_run: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=ensure_sample, args=(settings_in(tmp_path),)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    run = settings_in(tmp_path).sample_run
    assert contents(run) == contents(sample_run)
    assert sorted(path.name for path in run.parent.iterdir()) == [".lock", run.name]


def test_where_nothing_can_be_written_there_is_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BatchError) as caught:
        ensure_sample(settings_in(tmp_path / "file"), log=silent)
    assert "KAAPANA_NB_HOME" in caught.value.remedy


def test_damaged_package_data_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kaapana_nb.emulator import sample_volumes

    for name in ("manifest.json", "brain2.xz"):
        shutil.copy(Path(sample.__file__).parent / "sample_data" / name, tmp_path / name)
    data = bytearray((tmp_path / "brain2.xz").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "brain2.xz").write_bytes(data)
    monkeypatch.setattr(sample_volumes, "SAMPLE_DATA", tmp_path)
    with pytest.raises(BatchError, match="brain2 in the package is damaged"):
        sample_volumes.load_volume("brain2")


def test_conf_names_the_series_as_platform_0_6_does(sample_run: Path, tmp_path: Path) -> None:
    conf = json.loads((sample_run / "conf" / "conf.json").read_text())
    assert sorted(conf["data_form"]["identifiers"]) == sorted(series.series_uid for series in SERIES)
    path = write_conf(tmp_path, ["2.25.9"], workflow_form={"inside": 3})
    assert json.loads(path.read_text()) == {
        "data_form": {"identifiers": ["2.25.9"]},
        "workflow_form": {"single_execution": False, "inside": 3},
    }
