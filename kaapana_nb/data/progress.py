"""Progress and cancel for everything that can take over a second."""

from __future__ import annotations

import threading
from collections.abc import Callable

from kaapana_nb.errors import BatchError

OnProgress = Callable[[int, int, str], None]
"""Called with steps done, steps in all, and what is being done."""


class CancelledError(BatchError):
    """The job was cancelled by its owner."""


class Job:
    """One long piece of work: its owner watches it and may cancel it from any thread.

    Parameters
    ----------
    on_progress
        Called in the thread that works.
    """

    def __init__(self, on_progress: OnProgress | None = None) -> None:
        self._on_progress = on_progress
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Let the work end at its next step; files that are not whole do not appear."""
        self._cancelled.set()

    def step(self, done: int, total: int, what: str) -> None:
        """Say how far the work is.

        Raises
        ------
        CancelledError
            When the job was cancelled.
        """
        if self._cancelled.is_set():
            raise CancelledError(
                f"Cancelled while {what}, after {done} of {total}.", "Start it again when you want it."
            )
        if self._on_progress is not None:
            self._on_progress(done, total, what)
