"""``kaapana-nb verify``: notebook and container give the same results on the same batch."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from kaapana_nb.cli.run import add_batch_arguments, open_batch, parse_parameters

_EPILOG = """\
example:
  kaapana-nb verify extension --batch DIR

Builds the exported container (a rebuild takes well under a second), runs the notebook here and the container as the
platform would, both on copies of the batch, and compares arrays, geometry, JSON and DICOM tags.
Exit codes: 0 equal, 1 different or failed.
"""


def register(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "verify",
        help="compare notebook and exported container on a batch",
        description="Run notebook and exported container on the same batch and compare the results.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="directory of an export")
    add_batch_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one object with the comparison per output")
    parser.set_defaults(handler=handle)


def handle(args: argparse.Namespace) -> int:
    from kaapana_nb.clients.containers import find_runner
    from kaapana_nb.contract.profiles import profile
    from kaapana_nb.settings import Settings
    from kaapana_nb.ship.build import build_image
    from kaapana_nb.ship.parity import parity_proof, write_parity
    from kaapana_nb.ship.verify import read_export, verify_image
    from kaapana_nb.ship.wheelhouse import wheelhouse_of
    from kaapana_nb.work.execute import check_parameters
    from kaapana_nb.work.notebook import NotebookSpec

    def log(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    exported = read_export(args.directory)
    parameters = parse_parameters(args.parameters)
    check_parameters(NotebookSpec.read(exported.program), parameters)
    batch = open_batch(args.batch, args.input_name, exported.name)
    settings = Settings.from_environ()
    image = build_image(exported.context, settings=settings, wheelhouse=wheelhouse_of(args.directory), log=log)
    runner = find_runner(settings, log)
    report = verify_image(
        exported,
        image,
        batch,
        profile=profile(exported.profile),
        runner=runner,
        parameters=parameters,
        log=log,
    )
    proof = parity_proof(exported, image, batch, report, runner=runner.name)
    log(f"{write_parity(args.directory, exported, proof)} holds the proof")
    print(json.dumps(report.to_json(), indent=1) if args.json else report.table())
    return 0 if report.equal else 1
