"""``kaapana-nb execute``: what a container runs."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kaapana_nb.errors import UsageError

SIGNALLED = 128
"""Exit codes of processes that a signal ended begin here."""

_EPILOG = """\
example:
  WORKFLOW_DIR=/data BATCH_NAME=batch OPERATOR_OUT_DIR=otsus-method kaapana-nb execute otsus_method.ipynb

Run, batch, directories and parameters come from the environment, as the platform sets it.
Exit codes: 0 done, 1 an element or a cell failed, 126 nothing to do.
"""


def register(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "execute",
        help="run a notebook as a container does: context from the environment",
        description="Execute a notebook operator; the executed notebook is left in the operator's output directory.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--input", type=Path, metavar="DIR", help="Task API: mount with one directory per item")
    parser.add_argument("--output", type=Path, metavar="DIR", help="Task API: mount for the results")
    parser.set_defaults(handler=handle)


def handle(args: argparse.Namespace) -> int:
    from kaapana_nb.work.execute import environment_for
    from kaapana_nb.work.notebook import NotebookSpec
    from kaapana_nb.work.task_mounts import run_of_mounts

    end_on_sigterm()
    if (args.input is None) != (args.output is None):
        raise UsageError("--input and --output belong together.", "Give both mounts, or neither.")
    if args.input is None:
        return _execute(args.notebook, os.environ)
    name = NotebookSpec.read(args.notebook).name
    with run_of_mounts(args.input, args.output, name) as run:
        return _execute(args.notebook, environment_for(run, "batch", output_name=name))


def end_on_sigterm() -> None:
    """End on SIGTERM with its usual code, and tidied up.

    As process 1 of a container Python would otherwise not hear it at all.
    """

    def stop(number: int, _frame: object) -> None:
        raise SystemExit(SIGNALLED + number)

    signal.signal(signal.SIGTERM, stop)


def _execute(notebook: Path, environ: Mapping[str, str]) -> int:
    from kaapana_nb.work.execute import execute

    result = execute(notebook, environ, log=lambda line: print(line, file=sys.stderr, flush=True))
    if result.report is not None:
        print(result.report.summary, file=sys.stderr)
        for row in result.report.failed:
            print(f"{row.element} failed: {row.error} Remedy: {row.remedy}", file=sys.stderr)
    return result.exit_code
