"""Starting `kaapana-nb lab` as a user does, and seeing what a page asks for."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, Request

READY_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningLab:
    """A `kaapana-nb lab` that has printed its address."""

    process: subprocess.Popen[str]
    url: str
    workspace: Path
    run_dir: Path

    @property
    def origin(self) -> str:
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"


@dataclass(slots=True)
class Traffic:
    """Addresses that a page asked for, and what went wrong on it."""

    addresses: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def outside(self, origin: str) -> list[str]:
        """Addresses of another server; data and blob addresses stay in the browser."""
        host = urlsplit(origin).netloc
        parts = [(address, urlsplit(address)) for address in self.addresses]
        return [address for address, part in parts if part.scheme not in {"data", "blob"} and part.netloc != host]


def start_lab(*arguments: str, home: Path, stderr: int | None = None) -> tuple[subprocess.Popen[str], str]:
    """Start ``kaapana-nb lab`` with a home of its own and return it with the address it printed."""
    environ = {**os.environ, "KAAPANA_NB_HOME": str(home), "KAAPANA_NB_WORKSPACE": str(home / "workspace")}
    process = subprocess.Popen(
        [sys.executable, "-m", "kaapana_nb", "lab", "--no-browser", *arguments],
        env=environ, stdout=subprocess.PIPE, stderr=stderr, text=True,
    )  # fmt: skip
    found: queue.Queue[str] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                if match := re.search(r"http://127\.0\.0\.1:\d+/\S+", line):
                    found.put(match[0])

    threading.Thread(target=read, daemon=True).start()
    try:
        return process, found.get(timeout=READY_S)
    except queue.Empty:
        process.kill()
        process.wait()
        pytest.fail(f"kaapana-nb lab printed no address within {READY_S:.0f} s")


def end(process: subprocess.Popen[str]) -> int:
    """Press Ctrl-C, as it were, and return the exit code."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    return process.wait(30)


def watch(page: Page) -> Traffic:
    """Note everything that `page` asks for, and what fails."""
    seen = Traffic()

    def asked(request: Request) -> None:
        seen.addresses.append(request.url)

    page.on("request", asked)
    page.on("websocket", lambda socket: seen.addresses.append(socket.url))
    page.on("pageerror", lambda error: seen.failures.append(f"page: {error}"))
    page.on("requestfailed", lambda request: seen.failures.append(f"{request.failure}: {request.url}"))
    page.on(
        "response",
        lambda response: seen.failures.append(f"{response.status}: {response.url}") if response.status >= 500 else None,
    )
    return seen
