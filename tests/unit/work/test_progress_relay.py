"""`kaapana-nb run` in a terminal shows a bar, and nothing that a notebook prints is lost; elsewhere it shows lines."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import shutil
import subprocess
import sys
import termios
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from kaapana_nb.work.progress_relay import ProgressRelay, bar_on

NOTEBOOK = """
from kaapana_nb import Batch, BatchElement, algorithm, run

print("a cell prints")

@algorithm
def talks(element: BatchElement) -> dict:
    return {}

run(talks, Batch.from_environ())
"""
BAR = re.compile(r"\rtalks: +\d+%\|.*[01]/2 ")


def in_a_terminal(command: list[str], environ: dict[str, str], columns: int) -> tuple[int, str, str]:
    """Exit code, stdout, and what a terminal got as stderr."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=theirs, text=True) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # EIO: the last one who had the terminal open is gone
            while part := os.read(ours, 4096):
                shown += part
        os.close(ours)
        assert process.stdout is not None
        stdout = process.stdout.read()
        return process.wait(60), stdout, shown.decode()


@pytest.mark.parametrize(
    ("kind", "watcher"),
    [("ipynb", "a person"), ("ipynb", "CI"), ("ipynb", "nobody"), ("py", "a person"), ("py", "CI")],
)
def test_run_in_a_terminal(tmp_path: Path, sample_run: Path, kind: str, watcher: str) -> None:
    """A terminal that nobody looks at has no columns, as that of a container in the background."""
    for series in sorted((sample_run / "batch").iterdir())[:2]:
        shutil.copytree(series, tmp_path / "run" / "batch" / series.name)
    notebook = tmp_path / f"talks.{kind}"
    notebook.write_text(NOTEBOOK if kind == "py" else nbformat.writes(new_notebook(cells=[new_code_cell(NOTEBOOK)])))
    environ = {name: value for name, value in os.environ.items() if name != "CI"}
    if watcher == "CI":
        environ["CI"] = "true"
    command = [sys.executable, "-m", "kaapana_nb", "run", str(notebook), "--batch", str(tmp_path / "run")]
    code, stdout, shown = in_a_terminal(command, environ, columns=0 if watcher == "nobody" else 100)
    assert code == 0, shown
    assert "2 of 2 succeeded" in stdout
    assert "a cell prints\r\n" in shown
    assert "a cell prints" not in stdout
    assert bool(BAR.search(shown)) == (watcher == "a person")
    assert ("talks [1/2]" in shown) == (watcher != "a person")


def screen(text: str) -> str:
    """What is left on a terminal: a line that is written again replaces what it was."""
    return "\n".join(line.rstrip("\r").rpartition("\r")[2].rstrip() for line in text.split("\n"))


def relayed(*pieces: str) -> tuple[str, str]:
    """All that a terminal got, and what is left on it."""
    terminal = io.StringIO()
    relay = ProgressRelay(terminal)
    for piece in pieces:
        assert relay.write(piece) == len(piece)
        relay.flush()
    relay.close()
    return terminal.getvalue(), screen(terminal.getvalue())


def test_other_text_is_handed_on_between_the_bar_s_states() -> None:
    shown, left = relayed(
        "before\n", "a [1/3] 1.2.3 ok 0.12 s\n", "1.2.3: it says\n1.2.4: more\n", "a [2/3] 1.2.4 ok 0.12 s\n",
        "a [3/3] 1.2.5 ok 0.12 s\n", "after\n",
    )  # fmt: skip
    assert "1/3" in shown
    assert left == "before\n1.2.3: it says\n1.2.4: more\nafter\n"


def test_a_failure_is_counted_and_its_line_stays() -> None:
    shown, left = relayed("a [1/3] x failed 0.12 s\n", "a [2/3] y ok 0.12 s\na [3/3] z failed 0.12 s\n")
    assert "failed=1" in shown
    assert left == "a [1/3] x failed 0.12 s\na [3/3] z failed 0.12 s\n"


@pytest.mark.parametrize(
    "text", [".....", "50%\r75%\rdone", "a [1/2] is no progress\n", "[1/2] x ok 0.12 s\n", "a\n\nb", "a [1/3] x ok 0.1"]
)
def test_text_without_progress_is_as_it_was_written(text: str) -> None:
    for pieces in ([text], list(text)):
        assert relayed(*pieces)[0] == text


def test_text_before_a_newline_does_not_wait_without_a_bar() -> None:
    terminal = io.StringIO()
    ProgressRelay(terminal).write("working...")
    assert terminal.getvalue() == "working..."


def test_line_and_its_end_may_come_apart_and_a_run_may_stop() -> None:
    shown, left = relayed("a [1/3] x ok 0.12 s", "\n", "half a line")
    assert "1/3" in shown
    assert left == "half a line"


def test_a_file_gets_what_is_written(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log, bar_on(log) as shown:
        assert shown is log
