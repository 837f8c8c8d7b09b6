"""``kaapana-nb run``: a notebook's algorithm over a batch."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kaapana_nb.contract.names import directory_name
from kaapana_nb.errors import ContractError, UsageError

if TYPE_CHECKING:
    from kaapana_nb.data.batch import Batch
    from kaapana_nb.work.notebook import AlgorithmSpec

_EPILOG = """\
example:
  kaapana-nb run notebooks/otsus_method.ipynb --batch DIR -p inside=0 -p outside=1 --jobs 4

DIR is a workflow run (<run>/batch/<series>/get-input-data/). Results go to <series>/<operator>/, the executed
notebook and run-report.json to <run>/<operator>/. Results of an earlier run of the same operator are replaced.
Exit codes: 0 every element succeeded, 1 an element or a cell failed, 2 wrong call, 126 nothing to do.
"""


def register(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "run",
        help="run a notebook's algorithm over a batch",
        description="Run a notebook's algorithm over a batch, in parallel; one element's failure is never another's.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("notebook", type=Path)
    add_batch_arguments(parser)
    parser.add_argument("--out", metavar="NAME", help="name of the results' directory (default: the algorithm's name)")
    parser.add_argument("--jobs", type=int, metavar="N", help="elements that run at once (default: the CPUs)")
    parser.add_argument("--json", action="store_true", help="print one object with the outcome per element")
    parser.set_defaults(handler=handle)


def add_batch_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of every command that runs a notebook on a batch."""
    parser.add_argument("--batch", type=Path, required=True, metavar="DIR", help="a workflow run's directory")
    parser.add_argument("--in", dest="input_name", metavar="NAME", help="the operator whose results are the input")
    parser.add_argument(
        "-p",
        dest="parameters",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter of the algorithm; may be repeated",
    )


def parse_parameters(texts: list[str]) -> dict[str, str]:
    """``["inside=0"]`` -> ``{"inside": "0"}``."""
    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"-p {text!r} is no NAME=VALUE.", "Write for example -p inside=0.")
        values[name] = value
    return values


def option_name(flag: str, value: str) -> str:
    """The value of an option that names an operator's directory, checked."""
    try:
        return directory_name(value, flag)
    except ContractError as error:
        raise UsageError(error.problem, f"Give a plain name such as get-input-data: {flag} NAME") from error


def open_batch(path: Path, input_name: str | None, output_name: str | None = None) -> Batch:
    """The batch of ``--batch`` with the input of ``--in``, and with results in `output_name`.

    Raises
    ------
    UsageError
        When ``--in`` is no name, or input and output would be one directory.
    """
    from kaapana_nb.data.batch import DEFAULT_OUTPUT, Batch

    if input_name is not None:
        option_name("--in", input_name)
    output = DEFAULT_OUTPUT if output_name is None else output_name
    if input_name != output:
        # Without --in the input is guessed, and from all there is: not from what --out leaves of it.
        batch = Batch.open(path, input_name=input_name, output_name=None if input_name is None else output)
        if batch.input_name != output:
            return batch.with_output(output)
    raise UsageError(
        f"Input and output are both {output!r}: results would be mixed with what they are made from.",
        "Name another input with --in NAME, or to `kaapana-nb run` another output with --out NAME.",
    )


def warn_of_unusable(batch: Batch, algorithm: AlgorithmSpec) -> None:
    """Say which elements cannot be read, before anything slow; the rest of the batch goes on."""
    from kaapana_nb.work.preflight import check_batch

    if algorithm.input_type.rpartition(".")[2] == "Batch":
        return
    for _, error in check_batch(batch, algorithm.input_type):
        print(f"kaapana-nb: {error.problem}\n  remedy: {error.remedy}", file=sys.stderr)


def handle(args: argparse.Namespace) -> int:
    from kaapana_nb.cli.execute import end_on_sigterm
    from kaapana_nb.work.execute import check_parameters, environment_for, execute, remove_output
    from kaapana_nb.work.notebook import NotebookSpec
    from kaapana_nb.work.run import check_writable

    end_on_sigterm()
    spec = NotebookSpec.read(args.notebook)
    algorithm = spec.require_algorithm()
    parameters = parse_parameters(args.parameters)
    check_parameters(spec, parameters)
    if args.jobs is not None and args.jobs < 1:
        raise UsageError(f"--jobs is {args.jobs}; a whole number from 1 on was expected.", "Leave --jobs out.")
    output_name = algorithm.name if args.out is None else option_name("--out", args.out)
    input_name = algorithm.options.input_operator if args.input_name is None else args.input_name
    batch = open_batch(args.batch, input_name, output_name)
    check_writable(batch)
    warn_of_unusable(batch, algorithm)
    remove_output(batch)
    base = dict(os.environ)
    if args.jobs is not None:
        base["KAAPANA_NB_JOBS"] = str(args.jobs)
    environ = environment_for(
        batch.run_dir,
        batch.batch_dir.name,
        output_name=batch.output_name,
        input_name=batch.input_name,
        parameters=parameters,
        spec=spec,
        base=base,
    )
    result = execute(args.notebook, environ, log=lambda line: print(line, file=sys.stderr, flush=True))
    if result.report is not None:
        print(json.dumps(result.report.to_json(), indent=1) if args.json else result.report)
    return result.exit_code
