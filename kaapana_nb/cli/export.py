"""``kaapana-nb export``: a notebook becomes the files of a processing container."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kaapana_nb.contract.profiles import DEFAULT_PROFILE, PROFILES, profile
from kaapana_nb.errors import UsageError

if TYPE_CHECKING:
    from kaapana_nb.ship.export import ExtensionFiles

_EPILOG = """\
example:
  kaapana-nb export notebooks/otsus_method.ipynb -o extension --batch DIR

Writes the processing container, the operator, the DAG and the image that installs them below the directory. With
--batch, every file is searched for the identifiers of that batch's patients first; secrets are always searched for.
"""


def register(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "export",
        help="write the extension's files",
        description="Write a notebook as an extension: no output, no patient's data, the versions installed.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("notebook", type=Path)
    parser.add_argument("-o", dest="directory", type=Path, metavar="DIR", help="directory to write to")
    add_export_arguments(parser)
    parser.add_argument("--batch", type=Path, metavar="DIR", help="batch whose patients' identifiers must not leave")
    parser.add_argument(
        "--wheelhouse", action="store_true", help="also collect the wheels, for a build without internet"
    )
    parser.add_argument(
        "--python", metavar="VERSION", help="Python of the base image, for --wheelhouse (default: the platform's)"
    )
    parser.add_argument("--print", dest="shown", metavar="PATH", help="print one of the files instead of writing any")
    parser.set_defaults(handler=handle)


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of every command that exports."""
    parser.add_argument("--platform", choices=sorted(PROFILES), default=DEFAULT_PROFILE, help="generation of Kaapana")
    parser.add_argument(
        "--script", action="store_true", help="write a plain Python file instead of a notebook: a smaller container"
    )
    parser.add_argument(
        "--allow", action="append", default=[], metavar="FINGERPRINT", help="take one finding of the privacy scan"
    )
    parser.add_argument("--force", action="store_true", help="overwrite exported files that were edited since")


def export_checked(args: argparse.Namespace) -> ExtensionFiles:
    """Render the extension and search it for what must not leave; nothing is written yet."""
    from kaapana_nb.ship.context_guard import batch_to_guard
    from kaapana_nb.ship.export import export_notebook
    from kaapana_nb.ship.guard import guard

    extension = export_notebook(args.notebook, profile(args.platform), script=args.script)
    guarded = guard(extension, batch=batch_to_guard(args.batch), allowed=frozenset(args.allow), notebook=args.notebook)
    for line in (*extension.warnings, *guarded.lines()):
        print(line, file=sys.stderr)
    return replace(extension, allowed=guarded.fingerprints)


def _show(extension: ExtensionFiles, path: str) -> int:
    data = extension.files.get(path)
    if data is None:
        names = ", ".join(sorted(extension.files))
        raise UsageError(f"The export has no file {path!r}.", f"It has: {names}.")
    sys.stdout.buffer.write(data)
    return 0


def handle(args: argparse.Namespace) -> int:
    from kaapana_nb.ship.export import write_extension
    from kaapana_nb.ship.wheelhouse import fill_wheelhouse

    extension = export_checked(args)
    if args.directory is None and not args.shown:
        raise UsageError("export was given no directory.", "Name one: -o DIR; or print a file: --print PATH.")
    if args.shown:
        return _show(extension, args.shown)
    paths = write_extension(extension, args.directory, force=args.force)
    print(f"{extension.name} {extension.version} for Kaapana {extension.profile}:", file=sys.stderr)
    for path in paths:
        print(path)
    if args.wheelhouse:
        context = args.directory / "processing-containers" / extension.name
        python = args.python or profile(args.platform).python
        wheels = fill_wheelhouse(args.directory, context, python=python, log=lambda line: print(line, file=sys.stderr))
        print(f"{len(wheels)} wheels for Python {python} in {args.directory / 'wheelhouse'}", file=sys.stderr)
    return 0
