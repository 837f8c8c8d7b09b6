"""One child process whose output is passed on line by line, and which never outlives its caller's interest."""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kaapana_nb.clients.containers import TAIL_LINES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import FrameType

_GRACE_S = 5.0
_MAX_LINE = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a child ended. `exit_code` is 128 + the signal's number when a signal ended it."""

    exit_code: int
    timed_out: bool
    seconds: float
    tail: str


def supervise(
    command: Sequence[str],
    *,
    environ: Mapping[str, str],
    cwd: Path | None = None,
    timeout_s: float | None = None,
    log: Callable[[str], None],
    stop: Callable[[], None] | None = None,
) -> Ended:
    """Run `command` in a process group of its own until it ends, times out, or this process is interrupted.

    Parameters
    ----------
    stop
        Called before the group is killed early: the place to end what the group does not hold (a container).
    """
    started = time.perf_counter()
    tail: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)
    timed_out = threading.Event()
    with _terminated_as_interrupt():
        child = subprocess.Popen(
            command, env=dict(environ), cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

        def expire() -> None:
            timed_out.set()
            _end(child, stop)

        timer = threading.Timer(timeout_s, expire) if timeout_s is not None else None
        try:
            if timer is not None:
                timer.start()
            assert child.stdout is not None  # noqa: S101 - stdout is a pipe
            for raw in iter(lambda: child.stdout.readline(_MAX_LINE) if child.stdout else b"", b""):
                line = raw.decode(errors="replace").rstrip("\r\n")
                tail.append(line)
                log(line)
            code = child.wait()
        except BaseException:
            _end(child, stop)
            raise
        finally:
            if timer is not None:
                timer.cancel()
                timer.join()
            if child.stdout is not None:
                child.stdout.close()
            _kill_group(child.pid)
    return Ended(
        exit_code=code if code >= 0 else 128 - code,
        timed_out=timed_out.is_set(),
        seconds=time.perf_counter() - started,
        tail="\n".join(tail),
    )


def _end(child: subprocess.Popen[bytes], stop: Callable[[], None] | None) -> None:
    if stop is not None:
        stop()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
    try:
        child.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        _kill_group(child.pid)
        child.wait()


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


@contextlib.contextmanager
def _terminated_as_interrupt() -> Iterator[None]:
    """While a child runs, SIGTERM ends this process through its clean-up instead of at once."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
