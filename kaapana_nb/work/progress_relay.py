"""A bar in the terminal from the progress lines of a kernel, which cannot see that there is a terminal."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any, TextIO

from kaapana_nb.work.progress import bar_fits

_LINE = re.compile(r"(?P<label>\S+) \[(?P<done>\d+)/(?P<total>\d+)\] .+ (?P<status>\w+) \d+\.\d\d s")
"""What `kaapana_nb.work.progress` writes for a log."""


@contextlib.contextmanager
def bar_on(terminal: TextIO) -> Iterator[Any]:
    """Where a kernel's output goes: `terminal` itself, or a `ProgressRelay` where a bar fits there."""
    if not bar_fits(terminal):
        yield terminal
        return
    relay = ProgressRelay(terminal)
    try:
        yield relay
    finally:
        relay.close()


class ProgressRelay:
    """A file that shows progress lines as a bar on `terminal` and hands everything else on."""

    def __init__(self, terminal: TextIO) -> None:
        self._terminal = terminal
        self._bar: Any = None
        self._failed = 0
        self._rest = ""

    def write(self, text: str) -> int:
        """Show `text`; the beginning of a line waits for its end where it would disturb the bar or be part of it."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if found := _LINE.fullmatch(line):
                self._advance(found)
            else:
                self._hand_on(f"{line}\n")
        if self._bar is None and not _LINE.fullmatch(self._rest):
            self._hand_on(self._rest)
            self._rest = ""
        return len(text)

    def flush(self) -> None:
        self._terminal.flush()

    def close(self) -> None:
        """Take the bar away and show what was held back."""
        self._end_bar()
        self._hand_on(self._rest)
        self._rest = ""

    def _advance(self, line: re.Match[str]) -> None:
        from tqdm import tqdm

        done, total, failed = int(line["done"]), int(line["total"]), line["status"] == "failed"
        self._failed += failed
        if failed:
            self._hand_on(f"{line[0]}\n")
        if done >= total:
            self._end_bar()
        elif self._bar is None:
            self._bar = tqdm(
                total=total, initial=done, desc=line["label"], unit="series", file=self._terminal, leave=False,
                postfix={"failed": self._failed},
            )  # fmt: skip
        else:
            self._bar.set_postfix(failed=self._failed, refresh=False)
            self._bar.update(done - self._bar.n)

    def _hand_on(self, text: str) -> None:
        if self._bar is None:
            self._terminal.write(text)
            return
        self._bar.clear()
        self._terminal.write(text)
        self._bar.refresh()

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar, self._failed = None, 0
