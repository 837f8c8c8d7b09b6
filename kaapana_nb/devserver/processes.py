"""Finding and ending every process of a session, also those that left its process group.

Kernels and terminals start sessions of their own, and a worker may outlive its kernel. All of
them inherit the environment, so a variable with a random value marks them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

MARK = "KAAPANA_NB_SESSION"
_KILL_S = 5.0  # a killed process is gone at once, unless it hangs in the kernel


def marked_processes(mark: str) -> list[int]:
    """Ids of the running processes whose environment has ``KAAPANA_NB_SESSION=<mark>``, this one left out."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environ = (entry / "environ").read_bytes()
        except OSError:  # ended meanwhile, or another user's
            continue
        if wanted in environ.split(b"\0"):  # a zombie's environment is empty
            found.append(int(entry.name))
    return sorted(found)


def end_marked(mark: str, *, grace_s: float) -> list[int]:
    """Ask every marked process to end, kill what has not after `grace_s` seconds, and return what is left."""
    _signal_all(marked_processes(mark), signal.SIGTERM)
    killed_at = time.monotonic() + grace_s
    while (left := marked_processes(mark)) and time.monotonic() < killed_at + _KILL_S:
        if time.monotonic() >= killed_at:
            _signal_all(left, signal.SIGKILL)
        time.sleep(0.05)
    return left


def _signal_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
