"""Parity: the exported container gives what the notebook gives, on the same batch, element by element.

Both sides work on copies of the batch. The notebook runs in this environment, the container as the platform
would run it: read-only root, no network, uid 1000, the run mounted where the profile says.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kaapana_nb.clients.containers import ContainerRunner, Mount
from kaapana_nb.contract.context import DEFAULT_INPUT
from kaapana_nb.contract.exitcodes import FAILED, OK
from kaapana_nb.contract.profiles import Profile
from kaapana_nb.data.batch import Batch
from kaapana_nb.errors import BatchError, BuildError, NotebookError, ParityError
from kaapana_nb.ship.build import BuiltImage
from kaapana_nb.ship.compare import ElementParity, ParityReport, compare_results
from kaapana_nb.ship.compare_files import Tolerance
from kaapana_nb.ship.dag_files import PARALLEL, RUNNER_MIB
from kaapana_nb.ship.record import RECORD_FILE
from kaapana_nb.ship.segmentation_preflight import mask_problems
from kaapana_nb.work.execute import environment_for
from kaapana_nb.work.notebook import AlgorithmSpec, NotebookSpec
from kaapana_nb.work.report import REPORT_FILE, load_report

Log = Callable[[str], None]

_STATUS = "(outcome)"
FAILED_BOTH = "failed on both sides"
"""Difference of an element that gave an error here and in the container: alike, but no result."""
_TAIL_LINES = 5
TIMEOUT_S = 12 * 3600.0
"""The platform ends no operator earlier either."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """One processing container of an export.

    Attributes
    ----------
    program
        The notebook or script that it runs.
    runner
        Empty for a script that stands on its own; see `kaapana_nb.ship.export.Program`.
    """

    context: Path
    name: str
    program: Path
    runner: str
    profile: str


def read_export(directory: Path) -> Exported:
    """The processing container of an export.

    Raises
    ------
    BuildError
        When the directory is no export of ours.
    """
    try:
        record = json.loads((directory / RECORD_FILE).read_bytes())
        name, profile, runner = str(record["name"]), str(record["platform"]), str(record["runner"])
        context = directory / "processing-containers" / name
        program = context / "files" / str(record["program"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BuildError(
            f"{directory} is no export: it has no readable {RECORD_FILE}.",
            f"Write one: kaapana-nb export NOTEBOOK -o {directory}",
        ) from error
    if not program.is_file() or program.parent.parent != context or context.parent.parent != directory:
        raise BuildError(
            f"{directory} is no whole export: its program is missing.",
            f"Export again: kaapana-nb export NOTEBOOK -o {directory}",
        )
    return Exported(context=context, name=name, program=program, runner=runner, profile=profile)


def verify_image(
    exported: Exported,
    image: BuiltImage,
    batch: Batch,
    *,
    profile: Profile,
    runner: ContainerRunner,
    parameters: Mapping[str, str] | None = None,
    log: Log,
) -> ParityReport:
    """Run the notebook here and the image by `runner` on copies of the batch, and compare the results.

    Raises
    ------
    NotebookError
        When the notebook itself fails here.
    ParityError
        When the container does not run to its end.
    BatchError
        When there is no room for the copies.
    """
    with tempfile.TemporaryDirectory(prefix="knb-verify-", ignore_cleanup_errors=True) as name:
        left, right = (_copy(batch, Path(name) / side / "run", exported.name) for side in ("notebook", "container"))
        log("running the notebook in this environment")
        _run_here(exported, left, batch, parameters)
        algorithm = NotebookSpec.read(exported.program).algorithm
        _check_masks(left, exported.name, batch, algorithm)
        memory_mib = limit_mib(algorithm)
        log(
            f"running the container by {runner.name}"
            + (f", at most {memory_mib} MiB" if memory_mib and runner.isolated else "")
        )
        _run_container(exported, image, right, batch, profile, runner, parameters, memory_mib, log)
        declared = algorithm.options.tolerance if algorithm else {}
        tolerances = {suffix: Tolerance(absolute=bound) for suffix, bound in declared.items()}
        report = compare_results(left, right, batch_name="batch", output_name=exported.name, tolerances=tolerances)
        return ParityReport(elements=(*_outcomes(left, right, exported.name), *report.elements))


def _copy(batch: Batch, run: Path, output_name: str) -> Path:
    """Copy what operators before this one wrote; the own results of earlier runs stay behind."""
    try:
        for element in batch:
            for directory in sorted(element.element_dir.iterdir()):
                if directory.is_dir() and directory.name != output_name:
                    shutil.copytree(directory, run / "batch" / element.name / directory.name)
        for path in [run, *run.rglob("*")]:
            path.chmod(0o777 if path.is_dir() else 0o666)  # the container's user is another; the parent is private
    except OSError as error:
        raise BatchError(
            f"The batch cannot be copied for the comparison: {error.strerror}.",
            "Make room in the temporary directory, or set TMPDIR to a larger one.",
        ) from error
    return run


def _input_name(batch: Batch) -> str | None:
    return None if batch.input_name == DEFAULT_INPUT else batch.input_name


def _run_here(exported: Exported, run: Path, batch: Batch, parameters: Mapping[str, str] | None) -> None:
    environ = environment_for(
        run,
        "batch",
        output_name=exported.name,
        input_name=_input_name(batch),
        parameters=parameters,
        spec=NotebookSpec.read(exported.program),
        base={**os.environ, "KAAPANA_NB_PROGRESS": "log"},
    )
    words = ["-m", "kaapana_nb", "execute"] if exported.runner else ["-u"]
    command = [sys.executable, *words, str(exported.program)]
    result = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if not _ran(exported, run, result.returncode):
        raise NotebookError(
            f"The notebook ended with exit code {result.returncode} here: {_last(result.stderr)}",
            "Run it first: kaapana-nb run NOTEBOOK --batch DIR",
        )


def _run_container(
    exported: Exported,
    image: BuiltImage,
    run: Path,
    batch: Batch,
    profile: Profile,
    runner: ContainerRunner,
    parameters: Mapping[str, str] | None,
    memory_mib: int | None,
    log: Log,
) -> None:
    run_id = f"{exported.name}-260101000000000000"
    environ = environment_for(
        Path(profile.workflow_dir.format(run_id=run_id)),
        "batch",
        output_name=exported.name,
        input_name=_input_name(batch),
        parameters=parameters,
        base={},
    )
    environ["RUN_ID"] = run_id
    result = runner.run(
        image.layout,
        environ=environ,
        mounts=[Mount(source=run, target=profile.run_dir.format(run_id=run_id), read_only=False)],
        memory_mib=memory_mib,
        timeout_s=TIMEOUT_S,
        log=log,
    )
    if not _ran(exported, run, result.exit_code):
        reason = "was killed for want of memory" if result.oom_killed else f"ended with exit code {result.exit_code}"
        raise ParityError(
            f"The container {reason}: {_last(result.output_tail)}",
            "See its log above; cells that need something of this session fail there.",
        )


def limit_mib(algorithm: AlgorithmSpec | None) -> int | None:
    """The memory limit that the exported operator asks the platform for; ``None`` where none was declared."""
    declared = algorithm.options.memory_mib if algorithm else None
    return PARALLEL * declared + RUNNER_MIB if declared else None


def _check_masks(run: Path, name: str, batch: Batch, algorithm: AlgorithmSpec | None) -> None:
    """Stop when a mask could not become the DICOM SEG that it is declared to be."""
    anatomy = algorithm.options.mask if algorithm else None
    if anatomy is None:
        return
    made = Batch.open(run, input_name=batch.input_name, output_name=name)
    problems = list(mask_problems(made, anatomy, input_name=DEFAULT_INPUT))
    if problems:
        first = problems[0][1]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise BatchError(f"No DICOM SEG can be made of a mask{more}: {first.problem}", first.remedy)


def _ran(exported: Exported, run: Path, exit_code: int) -> bool:
    """Whether a side came to its end: with a report where there is an algorithm, with success where there is none."""
    if (run / exported.name / REPORT_FILE).is_file():
        return exit_code in {OK, FAILED}
    return exit_code == OK


def _outcomes(left: Path, right: Path, name: str) -> list[ElementParity]:
    """A row per element that failed on both sides, or whose outcome is not the same."""
    if not (left / name / REPORT_FILE).is_file() and not (right / name / REPORT_FILE).is_file():
        return []
    sides = [{row.element: row for row in load_report(run / name / REPORT_FILE).elements} for run in (left, right)]
    rows = []
    for element in sorted({*sides[0], *sides[1]}):
        status = [side[element].status if element in side else "missing" for side in sides]
        if status == ["failed", "failed"]:
            rows.append(ElementParity(element=element, output=_STATUS, equal=True, difference=FAILED_BOTH))
        elif status[0] != status[1]:
            difference = f"notebook: {status[0]}, container: {status[1]}"
            rows.append(ElementParity(element=element, output=_STATUS, equal=False, difference=difference))
    return rows


def _last(text: str) -> str:
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-_TAIL_LINES:])[-600:] or "it printed nothing"
