"""The command line: help, errors in two lines, exit codes, and a light start."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import types
from collections.abc import Callable

import pytest

import kaapana_nb
from kaapana_nb.cli import main as module
from kaapana_nb.cli.main import COMMANDS, build_parser, main
from kaapana_nb.errors import BatchError, UsageError

Plant = Callable[[Callable[[argparse.Namespace], int]], None]


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Plant:
    """Make `handler` what ``kaapana-nb doctor`` runs."""

    def put(handler: Callable[[argparse.Namespace], int]) -> None:
        def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
            parser = subparsers.add_parser("doctor")
            parser.add_argument("rest", nargs="*")
            parser.set_defaults(handler=handler)

        planted = types.ModuleType("kaapana_nb.cli.doctor")
        planted.register = register  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "kaapana_nb.cli.doctor", planted)

    return put


def raising(error: BaseException) -> Callable[[argparse.Namespace], int]:
    def handler(args: argparse.Namespace) -> int:
        raise error

    return handler


def test_handler_s_code_is_the_exit_code(plant: Plant) -> None:
    plant(lambda args: 126)
    assert main(["doctor"]) == 126


@pytest.mark.parametrize(("error", "code"), [(BatchError("No x.", "Do y."), 1), (UsageError("No x.", "Do y."), 2)])
def test_own_error_is_two_lines(plant: Plant, capsys: pytest.CaptureFixture[str], error: BatchError, code: int) -> None:
    plant(raising(error))
    assert main(["doctor"]) == code
    assert capsys.readouterr() == ("", "kaapana-nb: No x.\n  remedy: Do y.\n")


@pytest.mark.parametrize("words", [["--debug", "doctor"], ["doctor", "--debug"], ["doctor", "a", "--debug", "b"]])
def test_debug_shows_the_traceback_wherever_it_stands(
    plant: Plant, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    plant(raising(BatchError("No x.", "Do y.")))
    assert main(words) == 1
    said = capsys.readouterr().err
    assert said.startswith("Traceback")
    assert said.endswith("kaapana-nb: No x.\n  remedy: Do y.\n")


def test_debug_after_two_dashes_is_an_argument(plant: Plant, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[str] = []
    plant(lambda args: seen.extend(args.rest) or 0)
    assert main(["doctor", "--", "--debug"]) == 0
    assert seen == ["--debug"]


def test_unforeseen_error_is_one_line(plant: Plant, capsys: pytest.CaptureFixture[str]) -> None:
    plant(raising(ZeroDivisionError("division\nby zero")))
    assert main(["doctor"]) == 1
    said = capsys.readouterr().err
    assert (
        said == "kaapana-nb: internal error: ZeroDivisionError: division by zero; run again with --debug to see where\n"
    )


def test_interrupt_is_one_line(plant: Plant, capsys: pytest.CaptureFixture[str]) -> None:
    plant(raising(KeyboardInterrupt()))
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err == "kaapana-nb: interrupted\n"


@pytest.mark.parametrize(
    "words", [["nonsense"], ["doctor", "--nonsense"], ["doctor", "--jso"], ["--nonsense", "doctor"]]
)
def test_wrong_call_is_argparse_s_2(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(words) == 2
    assert "usage: kaapana-nb" in capsys.readouterr().err


def test_no_command_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "commands:" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"kaapana-nb {kaapana_nb.__version__}\n"


def all_parsers() -> dict[str, argparse.ArgumentParser]:
    """Every parser by its words, nested ones too."""
    found: dict[str, argparse.ArgumentParser] = {}

    def walk(parser: argparse.ArgumentParser) -> None:
        found[parser.prog] = parser
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for inner in action.choices.values():
                    walk(inner)

    walk(build_parser())
    return found


def test_every_command_is_there() -> None:
    assert {f"kaapana-nb {name}" for name in COMMANDS} <= set(all_parsers())


def test_every_help_has_an_example_of_the_command() -> None:
    for prog, parser in all_parsers().items():
        assert parser.description, prog
        assert "example" in (parser.epilog or ""), prog
        assert prog in (parser.epilog or ""), prog


def test_start_loads_nothing_heavy() -> None:
    program = (
        "import sys; from kaapana_nb.cli.main import main; main(['--help']);"
        "print(*sorted(sys.modules), file=sys.stderr)"
    )
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stderr.split()
    heavy = {"numpy", "SimpleITK", "pydicom", "papermill", "nbformat", "httpx", "jupyterlab", "IPython"}
    assert heavy & set(loaded) == set()


def test_one_command_imports_no_other_command_s_module() -> None:
    program = (
        "import sys; from kaapana_nb.cli.main import main; main(['doctor', '--help']);"
        "print(*sorted(sys.modules), file=sys.stderr)"
    )
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stderr.split()
    assert {name for name in COMMANDS if f"kaapana_nb.cli.{name}" in loaded} == {"doctor"}


def test_reader_that_goes_away_is_no_error() -> None:
    program = "from kaapana_nb.cli.main import main\nimport sys\nsys.exit(main(['--help']))"
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        [sys.executable, "-c", program], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == module.BROKEN_PIPE
    assert said == ""
