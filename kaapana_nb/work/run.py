"""`run`: an algorithm over a batch, in worker processes, one element's failure never another's."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

from kaapana_nb.data.batch import DEFAULT_OUTPUT, Batch, BatchElement
from kaapana_nb.errors import BatchError, UsageError
from kaapana_nb.settings import Settings
from kaapana_nb.work.algorithm import Algorithm
from kaapana_nb.work.parameters import reject_unknown, resolve
from kaapana_nb.work.progress import Progress, progress_for
from kaapana_nb.work.report import REPORT_FILE, ElementOutcome, RunReport
from kaapana_nb.work.worker import Job, crashed, pack, run_element, run_whole_batch, start_worker

_PRELOADED = ("SimpleITK", "pydicom", "pandas", "matplotlib.figure")
"""Slow imports that workers inherit when this process has them already."""

_MEMORY_SHARE = 0.8
"""Part of the free memory that elements running at once may take by their own declaration."""


def run(
    algorithm: Algorithm[Any, Any],
    batch: Batch,
    *,
    jobs: int | None = None,
    executor: Executor | None = None,
    **parameters: Any,
) -> RunReport:
    """Run an algorithm over a batch and write its results into each element's output directory.

    Results of an element go to ``<batch>/<element>/<operator out dir>/``, those of a batch-level algorithm and
    ``run-report.json`` to ``<run>/<operator out dir>/``. The operator's directory is the one the platform gave
    (``OPERATOR_OUT_DIR``), else the batch's ``output_name``, else the algorithm's name. Results of an earlier run
    of the same element are replaced, and removed when the element fails.

    Parameters
    ----------
    algorithm
        A function decorated with ``@algorithm``.
    batch
        The batch. With ``Batch.from_environ()``, parameters that are not given here come from the workflow form.
    jobs
        How many elements run at once. Default: the CPUs of this process, fewer where ``memory_mib`` times
        that many would not fit into memory.
    executor
        Any ``concurrent.futures`` executor to run elements on instead of own worker processes.
    **parameters
        Values of the algorithm's parameters.

    Returns
    -------
    RunReport
        A row per element. A failed element is a row, never an exception.

    Raises
    ------
    ParameterError
        For an unknown parameter or a value that is not allowed.
    AlgorithmError
        When the algorithm cannot be sent to a worker process.
    BatchError
        When the results cannot be written.
    """
    if not isinstance(algorithm, Algorithm):
        raise UsageError(
            f"run was given {type(algorithm).__name__}; an algorithm was expected.",
            "Decorate the function with @algorithm and pass the function.",
        )
    if jobs is not None and jobs < 1:
        raise UsageError(f"jobs is {jobs}; a whole number from 1 on was expected.", "Leave jobs out, or pass jobs=1.")
    reject_unknown(algorithm.parameters, parameters)
    context = batch.context
    form = {p.name: context.form_value(p.name) if context else None for p in algorithm.parameters}
    values = resolve(algorithm.parameters, parameters, form)
    batch = with_output_of(with_input_of(batch, algorithm.options.input_operator), algorithm.name)
    check_writable(batch)

    job = pack(algorithm.function, algorithm.input_type, algorithm.output_type, values)
    elements = () if algorithm.is_batch_level else tuple(batch)
    workers = min(max(1, len(elements)), jobs or default_jobs(algorithm.options.memory_mib))
    start = time.monotonic()
    with progress_for(algorithm.name, max(1, len(elements))) as progress:
        if algorithm.is_batch_level:
            tasks = [_Task(name="(batch)", submit=lambda pool: pool.submit(run_whole_batch, job, batch))]
        else:
            tasks = [_element_task(job, element, batch.run_dir) for element in elements]
        outcomes = _run_on(executor, tasks, progress) if executor else _run_in_processes(tasks, workers, progress)
    report = RunReport(
        algorithm=algorithm.name,
        version=algorithm.options.version,
        parameters=values,
        output_dir=batch.output_name,
        elements=tuple(outcomes),
        seconds=round(time.monotonic() - start, 3),
    )
    report.save(batch.output_dir / REPORT_FILE)
    return report


def with_input_of(batch: Batch, input_operator: str | None) -> Batch:
    """The batch with the input that the algorithm declares, where the platform did not name one."""
    named = batch.context is not None and batch.context.operator_in_dir
    return batch if named or input_operator is None else batch.with_input(input_operator)


def with_output_of(batch: Batch, algorithm_name: str) -> Batch:
    """The batch with the output directory that a run of this algorithm uses."""
    if batch.context is not None and batch.context.operator_out_dir:
        return batch.with_output(batch.context.operator_out_dir)
    return batch if batch.output_name != DEFAULT_OUTPUT else batch.with_output(algorithm_name)


def check_writable(batch: Batch) -> None:
    """Raise `BatchError` when results could not be written, before anything is computed; writes nothing."""
    for directory in (batch.output_dir, *(element.output_dir for element in batch)):
        exists = os.path.lexists(directory)
        if not os.access(directory if exists else directory.parent, os.W_OK) or (exists and not directory.is_dir()):
            raise BatchError(
                f"Results cannot be written to {directory}: it is read-only or not a directory.",
                "Make it writable for this user, or copy the batch to a directory of your own.",
            )


def default_jobs(memory_mib: int | None) -> int:
    """How many elements run at once: the CPUs, fewer where their declared memory would not fit."""
    jobs = Settings.from_environ().jobs
    if memory_mib is None:
        return jobs
    return max(1, min(jobs, int(available_mib() * _MEMORY_SHARE // memory_mib)))


def available_mib() -> float:
    """Free memory of this machine or container in MiB (Linux: MemAvailable, and the cgroup's limit)."""
    free = float("inf")
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) / 1024
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            free = min(free, int(Path(limit).read_text()) / 2**20)
    return free


class _Task:
    """One piece of work: its element's name, and how to hand it to an executor."""

    def __init__(self, *, name: str, submit: Callable[[Executor], Future[ElementOutcome]]) -> None:
        self.name, self.submit = name, submit


def _element_task(job: Job, element: BatchElement, run_dir: Path) -> _Task:
    return _Task(name=element.name, submit=lambda pool: pool.submit(run_element, job, element, run_dir))


def _run_on(executor: Executor, tasks: Sequence[_Task], progress: Progress) -> list[ElementOutcome]:
    """Run on an executor that the caller owns."""
    done: dict[str, ElementOutcome] = {}
    futures = {task.submit(executor): task for task in tasks}
    start = time.monotonic()
    for future in as_completed(futures):
        name = futures[future].name
        try:
            outcome = future.result()
        except Exception as error:  # noqa: BLE001 - an executor's own failure is that element's outcome
            outcome = replace(
                crashed(name, time.monotonic() - start),
                error=f"The executor lost this element: {type(error).__name__}.",
            )
        done[name] = outcome
        progress.advance(outcome)
    return [done[task.name] for task in tasks]


def _run_in_processes(tasks: Sequence[_Task], workers: int, progress: Progress) -> list[ElementOutcome]:
    """Run in own worker processes. When one dies, the elements in hand are run alone to find the one that killed it."""
    done: dict[str, ElementOutcome] = {}
    alone = False
    while waiting := [task for task in tasks if task.name not in done]:
        now = waiting[:1] if alone else waiting
        start = time.monotonic()
        with _pool(1 if alone else workers) as pool:
            futures = {task.submit(pool): task for task in now}
            broken = False
            for future in as_completed(futures):
                try:
                    outcome = future.result()
                except BrokenProcessPool:
                    broken = True
                    continue
                done[outcome.element] = outcome
                progress.advance(outcome)
        if alone and broken:
            outcome = crashed(now[0].name, round(time.monotonic() - start, 3))
            done[outcome.element] = outcome
            progress.advance(outcome)
            broken = False  # the culprit is found: go on with the rest together
        elif alone:
            broken = True
        alone = broken
    return [done[task.name] for task in tasks]


@contextlib.contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A process pool whose processes are gone when the block ends, also when it ends by an interrupt."""
    context = multiprocessing.get_context("forkserver")
    preload = ["kaapana_nb.work.worker", *(module for module in _PRELOADED if module in sys.modules)]
    context.set_forkserver_preload(preload)
    before = set(multiprocessing.active_children())
    threads = max(1, Settings.from_environ().jobs // workers)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=start_worker, initargs=(threads,))
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - before:
            process.kill()
        raise
    pool.shutdown()
