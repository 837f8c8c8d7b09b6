"""The ``kaapana-nb`` command: finds the sub-command, and turns errors into two lines and an exit code.

A sub-command is one module of this package with ``register(subparsers)``, which adds its
parser and sets its ``handler(args) -> int``. Only the module that is asked for is imported
(all of them for ``--help``), and modules import heavy packages inside their handlers.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from kaapana_nb import __version__
from kaapana_nb.contract.exitcodes import FAILED, USAGE
from kaapana_nb.errors import KaapanaNbError

COMMANDS = ("lab", "batch", "run", "execute", "export", "verify", "build", "ship", "tour", "doctor")
INTERRUPTED = 130
BROKEN_PIPE = 141

_EPILOG = """\
example:
  kaapana-nb lab                                             a JupyterLab session on the sample batch
  kaapana-nb run notebooks/otsus_method.ipynb --batch DIR    the notebook's algorithm over a batch

Every command has its own --help with an example. --debug shows the traceback of an error.
Exit codes: 0 done, 1 failed, 2 wrong call, 126 nothing to do.
"""


class _Parser(argparse.ArgumentParser):
    """A parser, as its sub-parsers are, that takes no shortened options: a script would break when one is added."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **options})


def build_parser(names: Sequence[str] = COMMANDS) -> argparse.ArgumentParser:
    """The parser with the sub-commands `names`."""
    parser = _Parser(
        prog="kaapana-nb",
        description="From an algorithm in a notebook to a verified, pushed processing container for Kaapana.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"kaapana-nb {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    subparsers = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND")
    for name in names:
        importlib.import_module(f"kaapana_nb.cli.{name}").register(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    words, debug = _take_debug(words)
    try:
        code = _dispatch(words)
        sys.stdout.flush()
        return code
    except KaapanaNbError as error:
        if debug:
            traceback.print_exc()
        print(f"kaapana-nb: {error.problem}\n  remedy: {error.remedy}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("kaapana-nb: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output is gone; so is what the interpreter would still flush at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 - the one place that must not let a traceback through
        if debug:
            traceback.print_exc()
        text = " ".join(str(error).split()) or "no message"
        hint = "" if debug else "; run again with --debug to see where"
        print(f"kaapana-nb: internal error: {type(error).__name__}: {text}{hint}", file=sys.stderr)
        return FAILED


def _dispatch(words: list[str]) -> int:
    asked = next((word for word in words if not word.startswith("-")), None)
    try:
        parser = build_parser([asked] if asked in COMMANDS else COMMANDS)
        args = parser.parse_args(words)
    except SystemExit as stop:  # argparse has printed its help, version or complaint
        return stop.code if isinstance(stop.code, int) else USAGE
    if args.command is None:
        parser.print_help(sys.stderr)
        return USAGE
    return int(args.handler(args))


def _take_debug(words: list[str]) -> tuple[list[str], bool]:
    """Take ``--debug`` out of `words`, wherever it stands before a ``--``."""
    end = words.index("--") if "--" in words else len(words)
    rest = [word for word in words[:end] if word != "--debug"]
    return rest + words[end:], len(rest) != end


if __name__ == "__main__":
    raise SystemExit(main())
