"""``kaapana-nb ship``: the whole line from a notebook to a verified, pushed image."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from kaapana_nb.cli.export import add_export_arguments
from kaapana_nb.cli.run import add_batch_arguments, open_batch, parse_parameters
from kaapana_nb.contract.profiles import profile

_EPILOG = """\
example:
  kaapana-nb ship notebooks/otsus_method.ipynb --batch DIR --push registry.example.org/project

Checks everything that can be checked at once, then exports, builds, verifies on the batch and pushes. Without --push
the image goes to an archive. It stops at the first thing that is wrong; nothing is pushed that was not verified.
"""


def register(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "ship",
        help="export, build, verify and push in one",
        description="From a notebook to a verified, pushed image.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("notebook", type=Path)
    add_batch_arguments(parser)
    parser.add_argument(
        "-o", dest="directory", type=Path, metavar="DIR", help="directory of the export (default: ./extension-<name>)"
    )
    add_export_arguments(parser)
    parser.add_argument("--push", metavar="REGISTRY", help="host[:port][/project] to push to")
    parser.add_argument("--tag", default="", help="tag of the image (default: the algorithm's version)")
    parser.add_argument("--archive", type=Path, metavar="FILE", help="archive to write (default without --push)")
    parser.add_argument("--base", metavar="REF|DIR", help="base image, instead of the Dockerfile's")
    parser.add_argument("--creds-file", type=Path, metavar="FILE", help="a docker config.json with the credentials")
    parser.add_argument("--ca-file", type=Path, metavar="FILE", help="certificate authority of a private registry")
    parser.add_argument("--plain-http", action="store_true", help="speak HTTP to the registry")
    parser.add_argument("--allow-failed", action="store_true", help="ship although the algorithm fails on some series")
    parser.add_argument("--json", action="store_true", help="print one object: images and parity")
    parser.set_defaults(handler=handle)


def handle(args: argparse.Namespace) -> int:
    from kaapana_nb.work.notebook import NotebookSpec

    spec = NotebookSpec.read(args.notebook)
    spec.require_run_cell()
    directory = args.directory or Path(f"extension-{spec.name}")
    parameters = parse_parameters(args.parameters)
    batch = open_batch(args.batch, args.input_name, spec.name)
    # Slow imports come after what can be wrong without them.
    from kaapana_nb.cli.steps import Steps
    from kaapana_nb.reference import ImageReference
    from kaapana_nb.settings import Settings
    from kaapana_nb.ship.build import push_target, registry_client
    from kaapana_nb.ship.dag_files import version_of
    from kaapana_nb.ship.ship import Destination, ship_notebook

    if args.push:
        name = ImageReference(repository=spec.name, tag=args.tag or version_of(spec))
        reference = push_target(args.push, name)
        client = registry_client(
            reference.registry,
            reference.repository,
            creds_file=args.creds_file,
            plain_http=args.plain_http or None,
            ca_file=args.ca_file,
        )
        destination = Destination(reference=reference, client=client)
    else:
        client = None
        destination = Destination(archive=args.archive or directory / f"{spec.name}-{version_of(spec)}.tar")
    try:
        shipped = ship_notebook(
            args.notebook,
            batch,
            directory,
            destination,
            profile=profile(args.platform),
            settings=Settings.from_environ(),
            step=Steps(),
            parameters=parameters,
            allowed=frozenset(args.allow),
            force=args.force,
            base=args.base,
            script=args.script,
            allow_failed=args.allow_failed,
        )
    finally:
        if client is not None:
            client.close()
    image = shipped.image
    if args.json:
        row: dict[str, object] = {"name": image.name, "reference": str(image.reference), "digest": image.digest}
        row |= {"bytes_uploaded": image.bytes_uploaded, "seconds": round(image.seconds, 3)}
        print(json.dumps({"images": [row], **shipped.parity.to_json()}, indent=1))
    else:
        print(shipped.archive or image.reference)
    return 0
