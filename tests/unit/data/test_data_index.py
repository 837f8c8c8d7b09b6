from __future__ import annotations

import multiprocessing
import os
import shutil
import stat
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pydicom.data
import pytest
from dicom_maker import series_uid, write_run, write_series

from kaapana_nb.data import index as index_module
from kaapana_nb.data.batch import Batch
from kaapana_nb.data.cache import open_cache
from kaapana_nb.data.index import located_problems
from kaapana_nb.data.progress import CancelledError, Job
from kaapana_nb.data.scan import CACHE_NAME
from kaapana_nb.errors import AlgorithmError, BatchError


@pytest.fixture
def run(tmp_path) -> Path:
    """A run whose files are old enough to be remembered."""
    directory = write_run(tmp_path / "run")
    age(directory)
    return directory


@pytest.fixture(autouse=True)
def remember_at_once(monkeypatch):
    """A file's ctime is always now in a test; what is fresh is tested on its own."""
    monkeypatch.setattr(index_module, "_FRESH_NS", -(10**12))


def age(directory: Path) -> None:
    for path in directory.rglob("*.dcm"):
        os.utime(path, (1_600_000_000, 1_600_000_000))


def test_the_table_has_one_row_per_series(run):
    rows = [row for found in Batch.open(run).index() for row in found.series]
    assert [row.series_uid for row in rows] == [series_uid("1"), series_uid("2")]
    row = rows[0]
    assert (row.modality, row.description, row.body_part) == ("CT", "Thorax", "CHEST")
    assert (row.files, row.instances, row.rows, row.columns, row.problems) == (5, 5, 6, 8, 0)
    assert row.spacing_mm == (0.5, 0.75, 2.0)
    assert row.complete is True
    assert row.transfer_syntax_uid == "1.2.840.10008.1.2.1"


def test_the_quick_table_reads_one_header_per_series(run):
    row = Batch.open(run).series_table()[0]
    assert (row.files, row.modality, row.spacing_mm) == (5, "CT", (0.5, 0.75, None))
    assert (row.instances, row.problems, row.complete) == (None, None, None)


def test_a_second_open_reads_no_header_and_says_the_same(run, monkeypatch):
    first = Batch.open(run).index()
    monkeypatch.setattr(index_module.HeaderReader, "read", None)
    second = Batch.open(run).index()
    for before, after in zip(first, second, strict=True):
        assert (after.series, after.problems) == (before.series, before.problems)
        plain = tuple(header._replace(patient_id=None) for header in before.instances())
        assert after.instances() == plain


def test_the_cache_holds_no_patient_and_is_the_owners_alone(run):
    Batch.open(run).index()
    cache = run / CACHE_NAME
    assert stat.S_IMODE(cache.stat().st_mode) == 0o600
    assert b"SECRET" not in cache.read_bytes()
    assert b"Secret" not in cache.read_bytes()
    assert b".dcm" not in cache.read_bytes()


@pytest.mark.parametrize("change", ["write", "same size and mtime", "rename", "delete", "add", "replace"])
def test_any_change_is_seen(run, change):
    batch = Batch.open(run)
    before = batch.index()[0].instances()
    path = batch[0].input_dir / "0003.dcm"
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    changed = path.read_bytes().replace(b"Thorax", b"Xarohx")
    if change == "write":
        path.write_bytes(changed)
    elif change == "same size and mtime":
        path.write_bytes(changed)
        os.utime(path, ns=times)
    elif change == "rename":
        path.rename(path.with_name("0000.dcm"))
    elif change == "delete":
        path.unlink()
    elif change == "add":
        shutil.copy(path, path.with_name("9.dcm"))
    else:
        other = path.with_name("new")
        other.write_bytes(changed)
        os.utime(other, ns=times)
        other.replace(path)
    after = batch.index()[0].instances()
    assert [(h.file_name, h.series_description) for h in after] != [(h.file_name, h.series_description) for h in before]
    fresh = batch[0].instances()
    assert [h._replace(patient_id=None) for h in after] == [h._replace(patient_id=None) for h in fresh]


def test_files_that_just_changed_are_not_remembered(run, monkeypatch):
    monkeypatch.setattr(index_module, "_FRESH_NS", 2_000_000_000)
    Batch.open(run).index()
    assert open_cache(run).sources == {}


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data.replace(b"Thorax", b"Xhorax"),
        lambda data: data.replace(b"Thorax", b"Xhorax", 1),
        lambda data: data[:60] + bytes([data[60] ^ 1]) + data[61:],
        lambda data: b"kaapana-nb index 1\n99999999999 x\n",
        lambda data: os.urandom(1000),
    ],
)
def test_a_damaged_cache_counts_as_absent(run, damage):
    batch = Batch.open(run)
    expected = [found.series for found in batch.index()]
    cache = run / CACHE_NAME
    cache.write_bytes(damage(cache.read_bytes()))
    assert [found.series for found in batch.index()] == expected
    assert [len(found.instances()) for found in batch.index()] == [5, 5]


def test_somebody_elses_cache_is_not_believed(run, monkeypatch):
    Batch.open(run).index()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert open_cache(run).sources == {}


def index_again_and_again(run: Path) -> list[list[int]]:
    counts = []
    for _ in range(10):
        counts.append([len(found.instances()) for found in Batch.open(run).index()])
        (run / CACHE_NAME).unlink(missing_ok=True)
    return counts


def test_several_processes_do_each_other_no_harm(run):
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(4, mp_context=context) as pool:
        for counts in pool.map(index_again_and_again, [run] * 4):
            assert counts == [[5, 5]] * 10
    Batch.open(run).index()
    assert len(open_cache(run).sources) == 2
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == [CACHE_NAME]


def test_a_read_only_batch_is_remembered_in_the_users_cache(run, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != run)
    cache = open_cache(run, {"XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert cache.path.is_relative_to(tmp_path / "cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Batch.open(run).index()
    assert cache.path.exists()
    assert stat.S_IMODE(cache.path.stat().st_mode) == 0o600
    assert not (run / CACHE_NAME).exists()


def test_a_directory_of_files_is_a_batch_of_its_series(tmp_path):
    source = tmp_path / "cd"
    write_series(source / "DICOM" / "A", series="1")
    write_series(source / "DICOM" / "B", series="2")
    for number, path in enumerate(sorted(source.rglob("*.dcm"))):
        path.rename(path.with_name(f"IM{number}"))
    (source / "README.TXT").write_text("hello")
    batch = Batch.open(source)
    assert [element.name for element in batch] == [series_uid("1"), series_uid("2")]
    assert [row.series_uid for row in batch.series_table()] == [series_uid("1"), series_uid("2")]
    assert batch[1].volume().shape == (5, 6, 8)
    assert batch[1].output_dir == source / "kaapana-run" / "batch" / series_uid("2") / "output"
    batch[1].output_dir.mkdir(parents=True)
    (batch[1].output_dir / "mask.dcm").write_bytes((source / "DICOM" / "A" / "IM0").read_bytes())
    assert len(Batch.open(source)[0].files()) == 5
    problems = located_problems(batch.index())
    assert [(problem.path.name, problem.severity) for problem in problems] == [("README.TXT", "error")]


def test_a_single_series_is_a_batch_of_one(tmp_path):
    write_series(tmp_path / "in")
    assert len(Batch.open(tmp_path / "in")) == 1
    assert Batch.open(tmp_path / "in", run_dir=tmp_path / "out")[0].output_dir.is_relative_to(tmp_path / "out")


def test_a_directory_with_dicomdir(tmp_path):
    source = tmp_path / "medium"
    shutil.copytree(Path(pydicom.data.__file__).parent / "test_files" / "dicomdirtests", source)
    batch = Batch.open(source)
    assert len(batch) >= 6
    about = [problem for problem in located_problems(batch.index()) if problem.path.name == "DICOMDIR"]
    assert about
    assert all(problem.severity == "warning" for problem in about)


def test_a_path_to_several_series_is_no_input_of_one_element(tmp_path):
    from kaapana_nb.data.loaders import load_input

    write_series(tmp_path / "one", series="1")
    assert load_input(Path, Batch.open(tmp_path / "one")[0]) == tmp_path / "one"
    write_series(tmp_path / "one" / "two", series="2")
    with pytest.raises(AlgorithmError, match="holds more than series"):
        load_input(Path, Batch.open(tmp_path / "one")[0])


def test_a_directory_without_dicom_is_no_batch(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(BatchError, match="no DICOM file with a SeriesInstanceUID"):
        Batch.open(tmp_path)


def test_progress_is_told_and_cancel_ends_the_work(run):
    told: list[tuple[int, int, str]] = []
    Batch.open(run).index(job=Job(lambda *step: told.append(step)))
    assert told[-1] == (2, 2, "reading headers")
    job = Job(lambda done, total, what: job.cancel())
    (run / CACHE_NAME).unlink()
    with pytest.raises(CancelledError, match="reading headers"):
        Batch.open(run).index(job=job)
    assert not (run / CACHE_NAME).exists()


def test_reading_ahead_gives_the_same_rows_and_leaves_no_file_open(run, monkeypatch):
    from kaapana_nb.data import reader

    open_before = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr(reader, "_AHEAD", 2)
    few = [found.instances() for found in Batch.open(run).index()]
    (run / CACHE_NAME).unlink()
    monkeypatch.setattr(reader, "_AHEAD", 128)
    assert [found.instances() for found in Batch.open(run).index()] == few
    rows = reader.HeaderReader().read(run, index_module.scan_files(run))
    next(rows)
    rows.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before


def test_opening_is_quick_with_many_files(tmp_path):
    directory = tmp_path / "batch" / "1.2" / "get-input-data"
    write_series(directory, slices=1)
    data = (directory / "0001.dcm").read_bytes()
    for number in range(500):
        (directory / f"x{number}").write_bytes(data)
    begin = time.perf_counter()
    assert len(Batch.open(tmp_path)) == 1
    assert time.perf_counter() - begin < 1
