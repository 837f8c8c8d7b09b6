"""The side of a run that happens in a worker process: load, call, write, measure, for one element.

Everything that crosses the process border is plain data: the algorithm goes in by cloudpickle (a notebook's
function lives in no module), an `ElementOutcome` comes back; images never travel.
"""

from __future__ import annotations

import contextlib
import functools
import io
import multiprocessing
import multiprocessing.connection
import os
import resource
import signal
import threading
import time
import traceback
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle

from kaapana_nb.data.loaders import load_input
from kaapana_nb.data.writers import write_result
from kaapana_nb.errors import AlgorithmError, KaapanaNbError
from kaapana_nb.work.mask import mask_identifiers
from kaapana_nb.work.report import WHOLE_BATCH, ElementOutcome

if TYPE_CHECKING:
    from kaapana_nb.data.batch import Batch, BatchElement

MAX_ERROR = 500
"""Longest error text kept per element, in characters."""


MAX_PRINTED = 20_000
"""What an algorithm may print per element and be shown, in characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """An algorithm made ready to travel. ``call`` is a cloudpickled `_Call`."""

    call: bytes
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    function: Callable[..., Any]
    input_type: Any
    output_type: Any


def pack(function: Callable[..., Any], input_type: Any, output_type: Any, values: Mapping[str, Any]) -> Job:
    """Make a `Job` of a function and its parameters' values.

    Raises
    ------
    AlgorithmError
        When the function uses something that cannot be sent to a worker process.
    """
    call = _Call(function=function, input_type=input_type, output_type=output_type)
    try:
        return Job(call=cloudpickle.dumps(call), values=dict(values))
    except Exception as error:
        raise AlgorithmError(
            f"{function.__name__} uses something that cannot be sent to a worker process ({type(error).__name__}).",
            "Open files, connections and locks inside the function instead of in a cell before it.",
        ) from error


def start_worker(threads: int) -> None:
    """Initializer of worker processes: leave interrupts to the parent, and end when the parent ends.

    `threads` is what each may use of the CPUs, so that parallel elements do not fight for them.
    """
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    """End this process when its parent is gone: a pool's worker would wait for work for ever, and keep the
    fork server alive.
    """
    multiprocessing.connection.wait([sentinel])
    os.kill(os.getpid(), signal.SIGKILL)


def run_element(job: Job, element: BatchElement, run_dir: Path) -> ElementOutcome:
    """Load one element's input, call the algorithm, write its result. Never raises for what the algorithm did."""

    def work(call: _Call) -> tuple[Path, ...]:
        _remove_results(element.output_dir, element.name)
        value = call.function(load_input(call.input_type, element), **job.values)
        check_result(value, call.output_type)
        return write_result(value, element.output_dir, element.name, annotation=call.output_type)

    return _outcome(job, element.name, run_dir, work, [element])


def run_whole_batch(job: Job, batch: Batch) -> ElementOutcome:
    """Call a batch-level algorithm once; its result goes to ``<run>/<operator out dir>/``."""

    def work(call: _Call) -> tuple[Path, ...]:
        value = call.function(batch, **job.values)
        check_result(value, call.output_type)
        return write_result(value, batch.output_dir, batch.output_name, annotation=call.output_type)

    return _outcome(job, WHOLE_BATCH, batch.run_dir, work, batch)


def check_result(value: Any, declared: Any) -> None:
    """Raise `AlgorithmError` when a result is not of the type that the function's annotation declares."""
    if declared is None or declared is Any:
        return
    members = (
        typing.get_args(declared) if typing.get_origin(declared) in {typing.Union, types.UnionType} else (declared,)
    )
    kinds = tuple(typing.get_origin(member) or member for member in members)
    if all(isinstance(kind, type) for kind in kinds) and not isinstance(value, kinds):
        expected = " or ".join(getattr(kind, "__name__", str(kind)) for kind in kinds)
        raise AlgorithmError(
            f"The algorithm returned {type(value).__name__}; {expected} was declared.",
            f"Return {expected}, or correct the annotation of the result.",
        )


def crashed(element: str, seconds: float) -> ElementOutcome:
    """The outcome of an element whose worker process died."""
    return ElementOutcome(
        element=element,
        status="failed",
        seconds=seconds,
        error="The worker process died while it worked on this element (out of memory, or a crash in native code).",
        remedy="Run this element alone with jobs=1, and declare @algorithm(memory_mib=...) so that fewer run at once.",
    )


def _outcome(
    job: Job,
    name: str,
    run_dir: Path,
    work: Callable[[_Call], tuple[Path, ...]],
    elements: Iterable[BatchElement],
) -> ElementOutcome:
    _reset_peak()
    start = time.perf_counter()
    printed = _Printed()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            paths = work(_load(job.call))
    except KaapanaNbError as error:
        problem, remedy = error.problem, error.remedy
    except Exception as error:  # noqa: BLE001 - whatever the algorithm raises is this element's outcome
        problem = mask_identifiers(f"{type(error).__name__}: {error} ({_place(error)})", elements)
        remedy = "Call the algorithm on this element in a cell to see the whole traceback."
    else:
        outputs = tuple(sorted(str(path.relative_to(run_dir)) for path in paths))
        seconds = round(time.perf_counter() - start, 3)
        return ElementOutcome(
            element=name,
            status="ok",
            seconds=seconds,
            peak_mib=_peak_mib(),
            outputs=outputs,
            printed=printed.getvalue(),
        )
    seconds = round(time.perf_counter() - start, 3)
    return ElementOutcome(
        element=name,
        status="failed",
        seconds=seconds,
        peak_mib=_peak_mib(),
        error=_line(problem),
        remedy=_line(remedy),
        printed=printed.getvalue(),
    )


class _Printed(io.StringIO):
    """What is printed, up to `MAX_PRINTED` characters; it travels to the process that shows it in order."""

    def write(self, text: str) -> int:
        room = MAX_PRINTED - self.tell()
        super().write(text[: max(0, room)])
        return len(text)


@functools.lru_cache(maxsize=4)
def _load(call: bytes) -> _Call:
    loaded: _Call = cloudpickle.loads(call)
    return loaded


def _remove_results(directory: Path, stem: str) -> None:
    """Remove what an earlier run left for this element, so that a failure never looks like a success."""
    if not directory.is_dir():
        return
    for path in directory.iterdir():
        ours = path.name == stem or path.name.startswith((f"{stem}.", f"{stem}-", f".{stem[:200]}"))
        if ours and path.is_file() and not path.is_symlink():
            path.unlink()


def _place(error: BaseException) -> str:
    """Line of the algorithm's own code where the error came from."""
    frames = traceback.extract_tb(error.__traceback__)
    package = str(Path(__file__).parents[1])
    own = [
        frame for frame in frames if not frame.filename.startswith(package) and "site-packages" not in frame.filename
    ]
    return f"{own[-1].name}, line {own[-1].lineno}" if own else "in a library"


def _line(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MAX_ERROR else text[: MAX_ERROR - 3] + "..."


def _reset_peak() -> None:
    """Make the kernel count this process's peak memory anew (Linux, proc(5): clear_refs)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _peak_mib() -> float | None:
    try:
        with Path("/proc/self/status").open() as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return round(int(line.split()[1]) / 1024, 1)
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 1024, 1) if os.uname().sysname == "Linux" else None
