"""Numbered steps with their times, for commands that do several things in a row."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TextIO

from kaapana_nb.ship.ship import StepLog


class Steps:
    """Prints ``[2] export``, what the step says, and its time."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = sys.stderr if stream is None else stream
        self.number = 0

    @contextlib.contextmanager
    def __call__(self, title: str) -> Iterator[StepLog]:
        self.number += 1
        self._print(f"[{self.number}] {title}")
        start = time.perf_counter()

        def log(line: str) -> None:
            self._print(f"    {line}")

        yield log
        self._print(f"    {time.perf_counter() - start:.1f} s\n")

    def _print(self, line: str) -> None:
        print(line, file=self.stream, flush=True)
