"""``kaapana-nb execute``: what a container runs."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

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
    parser.set_defaults(handler=handle)


def handle(args: argparse.Namespace) -> int:
    from kaapana_nb.work.execute import execute

    result = execute(args.notebook, os.environ, log=lambda line: print(line, file=sys.stderr, flush=True))
    if result.report is not None:
        print(result.report.summary, file=sys.stderr)
        for row in result.report.failed:
            print(f"{row.element} failed: {row.error} Remedy: {row.remedy}", file=sys.stderr)
    return result.exit_code
