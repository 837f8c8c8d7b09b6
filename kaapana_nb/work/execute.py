"""Executing a notebook operator: context from the environment, papermill, report, exit code.

The command line, the container and the parity proof all come through here, so that a notebook
runs the same way everywhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle

from kaapana_nb.contract.context import (
    BATCH_NAME,
    OPERATOR_IN_DIR,
    OPERATOR_OUT_DIR,
    WORKFLOW_DIR,
    RunContext,
)
from kaapana_nb.contract.exitcodes import OK, SKIP
from kaapana_nb.data.batch import Batch
from kaapana_nb.errors import BatchError, KaapanaNbError, NotebookError, ParameterError
from kaapana_nb.files import write_atomic
from kaapana_nb.work.mask import mask_identifiers
from kaapana_nb.work.notebook import NotebookSpec
from kaapana_nb.work.parameters import reject_unknown
from kaapana_nb.work.progress import LOG_VARIABLE
from kaapana_nb.work.progress_relay import bar_on
from kaapana_nb.work.report import REPORT_FILE, RunReport, load_report
from kaapana_nb.work.run import check_writable

_OWN_VARIABLES = ("RUN_ID", "DAG_ID", "TASK_ID", OPERATOR_IN_DIR, OPERATOR_OUT_DIR)
_START_TIMEOUT_S = 120
_PREFIX = "knb-run-"
_LONGEST_TMPDIR = 40
KERNEL_LOG = "kernel.log"
KERNEL_LOG_VARIABLE = "KAAPANA_NB_KERNEL_LOG"
"""Tells `kaapana_nb.work.kernel` where the kernel's own log goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """What the execution of a notebook came to.

    Attributes
    ----------
    notebook
        The executed notebook, in ``<run>/<operator out dir>/``; ``None`` when there was nothing to do.
    report
        The run's report; ``None`` for a notebook without an algorithm.
    """

    exit_code: int
    notebook: Path | None = None
    report: RunReport | None = None


def environment_for(
    run_dir: Path,
    batch_name: str,
    *,
    output_name: str,
    input_name: str | None = None,
    parameters: Mapping[str, str] | None = None,
    spec: NotebookSpec | None = None,
    base: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The environment in which the platform would start an operator on this run.

    `parameters` are form values by parameter name; `base` (default: this process's environment) gives the rest, except
    variables that the parameters of `spec` would take for form values: a user's shell is no form.
    """
    names = [*_parameter_names(spec)] if spec else []
    left_out = {*_OWN_VARIABLES, *(name.upper() for name in names)}
    values = {key: value for key, value in (os.environ if base is None else base).items() if key not in left_out}
    values[WORKFLOW_DIR] = str(run_dir)
    values[BATCH_NAME] = batch_name
    values[OPERATOR_OUT_DIR] = output_name
    if input_name:
        values[OPERATOR_IN_DIR] = input_name
    for name, value in (parameters or {}).items():
        values[name.upper()] = value
    return values


def check_parameters(spec: NotebookSpec, parameters: Mapping[str, str]) -> None:
    """Check ``-p name=value`` texts against the notebook before it is started.

    Raises
    ------
    ParameterError
        For an unknown name or a value that is not allowed.
    """
    known = spec.algorithm.parameters if spec.algorithm else ()
    reject_unknown(known, parameters, spec.variables)
    for parameter in known:
        if parameter.name in parameters:
            parameter.parse(parameters[parameter.name])
        elif parameter.required:
            raise ParameterError(
                f"Parameter {parameter.name} has no value and no default.",
                f"Pass it: -p {parameter.name}=VALUE ({parameter.allowed}).",
            )


def execute(path: Path, environ: Mapping[str, str], *, log: Callable[[str], None]) -> Execution:
    """Execute a notebook with papermill, as a container of the platform does. `environ` is its whole environment.

    Cells tagged ``explore`` are left out. The executed notebook is saved after each cell in
    ``<run>/<operator out dir>/``, also when a cell fails. A variable of the cell tagged ``parameters`` is set
    from the environment variable of its name in upper case.

    Raises
    ------
    ContractError, BatchError
        When the environment names no usable run.
    NotebookError
        When the notebook is none, or a cell failed.
    """
    spec = NotebookSpec.read(path)
    context = RunContext.from_environ(environ)
    if context.batch_dir.is_dir() and not any(path.is_dir() for path in context.batch_dir.iterdir()):
        log(f"{spec.name}: the batch {context.batch_dir.name} has no element: nothing to do (exit code {SKIP}).")
        return Execution(exit_code=SKIP)
    batch = _batch(environ, spec, context)
    check_parameters(spec, {p.name: v for p in _parameters(spec) if (v := context.form_value(p.name)) is not None})
    check_writable(batch)
    batch.output_dir.mkdir(parents=True, exist_ok=True)
    target = None if spec.is_script else batch.output_dir / path.name
    report_file = batch.output_dir / REPORT_FILE
    report_file.unlink(missing_ok=True)
    try:
        if target is None:
            with contextlib.redirect_stdout(sys.stderr):  # as of a notebook: stdout is for data
                run_script(path, environ)
        else:
            _papermill(spec, target, environ)
    except _CellFailedError as failed:
        raise NotebookError(mask_identifiers(failed.problem, batch), failed.remedy) from None
    if spec.algorithm is None:
        return Execution(exit_code=OK, notebook=target)
    spec.require_algorithm()
    report = load_report(report_file)
    return Execution(exit_code=report.exit_code, notebook=target, report=report)


def run_script(path: Path, environ: Mapping[str, str]) -> None:
    """Run a Python file in this process, as a module of its own that worker processes need not import."""
    module = types.ModuleType(f"kaapana_script_{path.stem}")
    module.__file__ = str(path.absolute())
    before, search = dict(os.environ), list(sys.path)
    sys.modules[module.__name__] = module
    cloudpickle.register_pickle_by_value(module)
    _replace_environ(environ)
    sys.path.insert(0, str(path.absolute().parent))
    try:
        exec(compile(path.read_bytes(), module.__file__, "exec"), module.__dict__)  # noqa: S102 - what we are for
    except SystemExit as stop:
        if stop.code not in {None, 0}:
            raise _CellFailedError(f"{path.name} ended with {stop.code!r}.", "See its output above.") from stop
    except KaapanaNbError:
        raise
    except Exception as error:
        line = traceback.extract_tb(error.__traceback__)[-1].lineno
        text = " ".join(str(error).split())[:400]
        raise _CellFailedError(
            f"{path.name}, line {line}, failed: {type(error).__name__}: {text}", "Correct the script."
        ) from error
    finally:
        cloudpickle.unregister_pickle_by_value(module)
        del sys.modules[module.__name__]
        sys.path[:] = search
        _replace_environ(before)


def execute_notebook(notebook: str | os.PathLike[str], environ: Mapping[str, str] | None = None) -> None:
    """Execute a notebook operator on the batch of this session, in a process of its own.

    For notebooks that need the results of another one.

    Raises
    ------
    NotebookError
        When it failed; its output tells why.
    """
    command = [sys.executable, "-m", "kaapana_nb", "execute", os.fspath(notebook)]
    values = {k: v for k, v in os.environ.items() if k not in {OPERATOR_IN_DIR, OPERATOR_OUT_DIR}} | dict(environ or {})
    result = subprocess.run(command, env=values, capture_output=True, text=True, check=False)
    if result.returncode not in {OK, SKIP}:
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        raise NotebookError(
            f"{Path(notebook).name} ended with exit code {result.returncode}: {' '.join(lines[-2:])}",
            "Open that notebook and run it to see where it fails.",
        )


def remove_output(batch: Batch) -> None:
    """Delete the operator's own results of an earlier run, as the platform does before a normal start."""
    for directory in (batch.output_dir, *(element.output_dir for element in batch)):
        if directory.is_symlink():
            raise BatchError(f"{directory} is a link; a directory was expected.", "Remove the link.")
        if directory.is_dir():
            shutil.rmtree(directory)


def _parameter_names(spec: NotebookSpec) -> Iterator[str]:
    yield from (parameter.name for parameter in _parameters(spec))
    yield from spec.variables


def _parameters(spec: NotebookSpec) -> tuple[Any, ...]:
    return spec.algorithm.parameters if spec.algorithm else ()


def _batch(environ: Mapping[str, str], spec: NotebookSpec, context: RunContext) -> Batch:
    name = context.operator_out_dir or spec.name
    return Batch.from_environ({**environ, OPERATOR_OUT_DIR: name})


class _CellFailedError(KaapanaNbError):
    pass


def _papermill(spec: NotebookSpec, target: Path, environ: Mapping[str, str]) -> None:
    import nbformat
    import papermill
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    notebook = nbformat.read(spec.path, as_version=4)
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    keep = {cell.index for cell in spec.cells}
    notebook.cells = [cell for index, cell in enumerate(notebook.cells, start=1) if index in keep]
    values = {name: environ[name.upper()] for name in spec.variables if name.upper() in environ}
    algorithm_names = {parameter.name for parameter in _parameters(spec)}
    injected = {name: _literal(text) for name, text in values.items() if name not in algorithm_names}
    with bar_on(sys.stderr) as shown, _kernel_environment(environ) as directory:
        draft = directory / "notebook.ipynb"
        nbformat.write(notebook, draft)
        settings = {
            "transport": "ipc",
            "ip": str(directory / "kernel"),
            "connection_file": str(directory / "kernel.json"),
        }
        try:
            papermill.execute_notebook(
                str(draft),
                str(target),
                parameters=injected,
                kernel_name="python3",
                progress_bar=False,
                stdout_file=shown,  # stdout is for data: a report, or JSON
                stderr_file=shown,
                start_timeout=_START_TIMEOUT_S,
                cwd=str(spec.path.absolute().parent),
                kernel_manager_class="kaapana_nb.work.kernel.QuietKernelManager",
                config=Config({"KernelManager": settings}),
            )
        except PapermillExecutionError as error:
            _remove_error_banner(target)
            cell = sorted(keep)[min(error.cell_index, len(keep) - 1)] if not injected else error.cell_index
            raise _CellFailedError(
                f"Cell {cell} of {spec.path.name} failed: {error.ename}: {' '.join(str(error.evalue).split())[:400]}",
                f"See the executed notebook: {target}",
            ) from None
        except RuntimeError as error:
            tail = " ".join((directory / KERNEL_LOG).read_text(errors="replace").split())[-400:]
            raise _CellFailedError(
                f"The kernel of {spec.path.name} died ({error}): {tail or 'it said nothing'}",
                "Check memory and that `python3 -m ipykernel --version` works in this environment.",
            ) from error


def _literal(text: str) -> Any:
    """A value for papermill: a number, true or false where the text is one, else the text."""
    try:
        value = json.loads(text.lower() if text in {"True", "False"} else text)
    except ValueError:
        return text
    return value if isinstance(value, int | float | bool) else text


def _remove_error_banner(target: Path) -> None:
    """Papermill puts a red banner of HTML on top of a failed notebook; the error is in its cell already."""
    import nbformat

    notebook = nbformat.read(target, as_version=4)
    notebook.cells = [c for c in notebook.cells if "papermill-error-cell-tag" not in c.metadata.get("tags", ())]
    write_atomic(target, nbformat.writes(notebook).encode())


@contextlib.contextmanager
def _kernel_environment(environ: Mapping[str, str]) -> Iterator[Path]:
    """A private directory for all that a kernel and its children leave in passing, and the environment that names it.

    The root may be read-only, and a killed process cannot clean up: directories of processes that are gone are
    removed by the next execution.
    """
    temporary = _short_directory()
    _sweep(temporary)
    before = dict(os.environ)
    prefix = f"{_PREFIX}{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=temporary, ignore_cleanup_errors=True) as name:
        directory = Path(name)
        (directory / "scratch").mkdir()
        _replace_environ(environ)
        os.environ.update(
            JUPYTER_RUNTIME_DIR=name,
            IPYTHONDIR=f"{name}/ipython",
            TMPDIR=f"{name}/scratch",
            **{KERNEL_LOG_VARIABLE: f"{name}/{KERNEL_LOG}"},
        )
        (directory / KERNEL_LOG).touch()
        os.environ.setdefault(LOG_VARIABLE, "log")
        if not os.access(os.environ.get("HOME") or "/", os.W_OK):
            os.environ["HOME"] = name
        os.environ.setdefault("MPLCONFIGDIR", f"{name}/matplotlib")
        try:
            yield directory
        finally:
            _replace_environ(before)


def _replace_environ(values: Mapping[str, str]) -> None:
    """Make `values`, which may be ``os.environ`` itself, this process's whole environment."""
    values = dict(values)
    os.environ.clear()
    os.environ.update(values)


def _short_directory() -> Path:
    """A directory for temporary files whose path leaves room for the names of sockets (unix(7): 107 bytes in all)."""
    usual = Path(tempfile.gettempdir())
    short = Path("/tmp")  # noqa: S108 - what is made in it is private and has a random name
    return short if len(str(usual)) > _LONGEST_TMPDIR and os.access(short, os.W_OK) else usual


def _sweep(temporary: Path) -> None:
    """Remove directories of executions whose process is gone."""
    for path in temporary.glob(f"{_PREFIX}*-*"):
        number = path.name.removeprefix(_PREFIX).partition("-")[0]
        gone = number.isdigit() and not Path(f"/proc/{number}").exists()
        with contextlib.suppress(OSError):
            if gone and path.is_dir() and not path.is_symlink() and path.stat().st_uid == os.getuid():
                shutil.rmtree(path, ignore_errors=True)
