"""Progress of a run where its reader is: a bar in a notebook or a terminal, lines in a log."""

from __future__ import annotations

import html
import os
import sys
import time
from types import TracebackType
from typing import Any, Protocol, Self, TextIO

from kaapana_nb.work.report import ElementOutcome

LOG_VARIABLE = "KAAPANA_NB_PROGRESS"
"""``log`` makes every progress a line on stderr (set by ``kaapana-nb execute``); ``off`` shows none."""


class Progress(Protocol):
    """Told of each element that is finished; used as a context manager."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def advance(self, outcome: ElementOutcome) -> None: ...


def progress_for(label: str, total: int) -> Progress:
    """The progress that fits where this process shows its output."""
    mode = os.environ.get(LOG_VARIABLE, "")
    if mode == "off":
        return _Silent()
    if mode != "log":
        if _in_notebook():
            return _NotebookBar(label, total)
        if bar_fits(sys.stderr):
            return _TerminalBar(label, total)
    return _Lines(label, total)


def bar_fits(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that someone watches; continuous integration keeps what it is given."""
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except OSError:  # a file, a pipe or no file at all
        return False
    return columns > 0 and not os.environ.get("CI")


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


class _Base:
    def __init__(self, label: str = "", total: int = 0) -> None:
        self.label, self.total, self.done, self.failed = label, total, 0, 0
        self.start, self.last = time.monotonic(), ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def advance(self, outcome: ElementOutcome) -> None:
        self.done += 1
        self.failed += outcome.status == "failed"
        self.last = f"{outcome.element} {outcome.status} {outcome.seconds:.2f} s"
        for line in outcome.printed.splitlines():
            print(f"{outcome.element}: {line}", file=sys.stderr)
        self.show()

    def show(self) -> None:
        """Show the state after one more element."""


class _Silent(_Base):
    pass


class _Lines(_Base):
    def show(self) -> None:
        print(f"{self.label} [{self.done}/{self.total}] {self.last}", file=sys.stderr, flush=True)


class _TerminalBar(_Base):
    def __enter__(self) -> Self:
        from tqdm import tqdm

        self.bar: Any = tqdm(total=self.total, desc=self.label, unit="series", file=sys.stderr, leave=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.close()

    def show(self) -> None:
        self.bar.set_postfix(failed=self.failed, refresh=False)
        self.bar.update(1)


class _NotebookBar(_Base):
    """A plain HTML bar that updates in place; it needs no widget and leaves one line in the notebook."""

    def __enter__(self) -> Self:
        from IPython.display import HTML, display

        self.html: Any = HTML
        self.handle: Any = display(HTML(self._markup()), display_id=True)
        return self

    def show(self) -> None:
        self.handle.update(self.html(self._markup()))

    def _markup(self) -> str:
        left = ""
        if 0 < self.done < self.total:
            left = f", about {(time.monotonic() - self.start) / self.done * (self.total - self.done):.0f} s left"
        failed = f", {self.failed} failed" if self.failed else ""
        return (
            f"<label>{html.escape(self.label)} <progress max='{self.total}' value='{self.done}'></progress> "
            f"{self.done} of {self.total}{failed}{left}</label>"
        )
