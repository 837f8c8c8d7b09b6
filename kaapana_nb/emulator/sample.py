"""The sample batch: real CT and MR series in the platform's layout, made from what the package holds.

::

    <run>/batch/<SeriesInstanceUID>/get-input-data/<SOPInstanceUID>.dcm
    <run>/conf/conf.json
    <run>/.sample.json          which sample this is, and what belongs to it
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kaapana_nb.contract.context import DEFAULT_INPUT
from kaapana_nb.errors import BatchError
from kaapana_nb.files import write_atomic

if TYPE_CHECKING:
    from kaapana_nb.settings import Settings

BATCH = "batch"
STAMP = ".sample.json"
_MAKING = ".making-"
_RETIRED = ".retired-"


def ensure_sample(settings: Settings, *, log: Callable[[str], object] = print) -> Path:
    """Make the sample batch unless it is there, and return its run directory.

    Results beside ``get-input-data`` are never touched; an input directory that is missing,
    incomplete or of an older sample is replaced. A new run directory gets its name only when it
    is whole, and of several processes one makes it while the others wait.

    Raises
    ------
    BatchError
        When the directory is there but holds no sample batch, or cannot be written.
    """
    run = settings.sample_run
    version = sample_version()
    if _is_current(run, version):
        return run
    try:
        with _lock(run.parent):
            if not _is_current(run, version):
                log(f"Making the sample batch in {run} …")
                _make(run, version)
    except OSError as error:
        raise BatchError(
            f"The sample batch cannot be written to {run}: {error.strerror or error}.",
            "Make room there, or set KAAPANA_NB_HOME to a directory that you may write to.",
        ) from error
    return run


def sample_version() -> str:
    """A hash over the data and the code that the sample batch is made of."""
    digest = hashlib.sha256()
    package = resources.files("kaapana_nb.emulator")
    for name in ("sample.py", "sample_headers.py", "sample_volumes.py", "sample_data/manifest.json"):
        digest.update((package / name).read_bytes())
    return digest.hexdigest()


def write_conf(run: Path, series_uids: list[str], *, workflow_form: dict[str, Any] | None = None) -> Path:
    """Write the run's configuration as platform 0.6 does: ``<run>/conf/conf.json``."""
    conf = {
        "data_form": {"identifiers": series_uids},
        "workflow_form": {"single_execution": False, **(workflow_form or {})},
    }
    path = run / "conf" / "conf.json"
    write_atomic(path, json.dumps(conf, indent=2).encode() + b"\n")
    return path


def _is_current(run: Path, version: str) -> bool:
    stamp = _read_stamp(run)
    return stamp.get("version") == version and all(
        _count_instances(_input_dir(run, series_uid)) == count for series_uid, count in stamp["series"].items()
    )


def _read_stamp(run: Path) -> dict[str, Any]:
    """The stamp of the run directory, or an empty one where there is none."""
    try:
        stamp = json.loads((run / STAMP).read_bytes())
    except (OSError, ValueError):
        return {}
    series = stamp.get("series") if isinstance(stamp, dict) else None
    if not isinstance(series, dict) or not all(set(uid) <= set("0123456789.") for uid in series):
        return {}
    return {"version": stamp.get("version"), "series": series}


def _input_dir(run: Path, series_uid: str) -> Path:
    return run / BATCH / series_uid / DEFAULT_INPUT


def _count_instances(directory: Path) -> int:
    try:
        with os.scandir(directory) as entries:
            return sum(entry.name.endswith(".dcm") for entry in entries)
    except OSError:
        return 0


@contextlib.contextmanager
def _lock(directory: Path) -> Iterator[None]:
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(run: Path, version: str) -> None:
    """Make the whole sample beside `run`, then give it its name or exchange what is out of date."""
    for left_over in run.parent.glob(f"{_MAKING}*"):  # of a process that was killed: the lock is ours
        shutil.rmtree(left_over)
    old = _read_stamp(run)
    if run.exists() and not old:
        raise BatchError(
            f"{run} is there, but it is not a sample batch that kaapana-nb made.",
            "Move that directory away, or set KAAPANA_NB_HOME to another directory.",
        )
    making = run.parent / f"{_MAKING}{secrets.token_hex(4)}"
    try:
        series = _write_batch(making)
        write_conf(making, list(series))
        (making / STAMP).write_text(json.dumps({"version": version, "series": series}, indent=1) + "\n")
        if old:
            _exchange_inputs(run, making, {*old["series"], *series})
            (making / STAMP).replace(run / STAMP)  # last: until here the next call does it again
        else:
            making.rename(run)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _exchange_inputs(run: Path, making: Path, series_uids: set[str]) -> None:
    """Put the new input directories in place of the old ones; what lies beside them stays."""
    for series_uid in sorted(series_uids):
        current, new = _input_dir(run, series_uid), _input_dir(making, series_uid)
        if current.exists():
            current.rename(making / f"{_RETIRED}{series_uid}")
        if new.exists():
            current.parent.mkdir(parents=True, exist_ok=True)
            new.rename(current)
        else:
            with contextlib.suppress(OSError):  # results of the user keep the directory of a series that is gone
                current.parent.rmdir()
    (run / "conf").mkdir(exist_ok=True)
    (making / "conf" / "conf.json").replace(run / "conf" / "conf.json")


def _write_batch(run: Path) -> dict[str, int]:
    """Write every series below `run`; return the number of instances by series UID."""
    # Imported here: when the sample is there, nobody waits for pydicom.
    from kaapana_nb.emulator.sample_headers import SERIES, instance, series_header
    from kaapana_nb.emulator.sample_volumes import load_volume

    written = {}
    volumes = {name: load_volume(name) for name in sorted({series.volume for series in SERIES})}
    for series in SERIES:
        volume = volumes[series.volume]
        directory = _input_dir(run, series.series_uid)
        directory.mkdir(parents=True)
        header = series_header(series, volume)
        for index in range(series.first, series.end):
            dataset = instance(header, series, volume, index)
            dataset.save_as(directory / f"{dataset.SOPInstanceUID}.dcm", enforce_file_format=True)
        written[series.series_uid] = series.end - series.first
    return written
