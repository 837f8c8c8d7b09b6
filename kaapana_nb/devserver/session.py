"""One JupyterLab session: start it, wait until it answers, and end everything it started."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from kaapana_nb.contract.context import BATCH_NAME, OPERATOR_IN_DIR, OPERATOR_OUT_DIR, WORKFLOW_DIR
from kaapana_nb.devserver.config import HOST, LabConfig
from kaapana_nb.devserver.processes import MARK, end_marked
from kaapana_nb.errors import PlatformError, UsageError

READY_TIMEOUT_S = 90.0
STOP_GRACE_S = 8.0
STATE_DIR = ".kaapana-nb"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPlan:
    """What a session shows.

    Attributes
    ----------
    workspace
        Directory that JupyterLab shows; it survives the session.
    notebook
        Path of the notebook to open, relative to `workspace`.
    run_dir, batch_name
        The workflow run that ``Batch.from_environ()`` opens.
    port
        Port on 127.0.0.1; 0 lets the system choose.
    """

    workspace: Path
    notebook: str
    run_dir: Path
    batch_name: str
    port: int = 0

    @property
    def state_dir(self) -> Path:
        return self.workspace / STATE_DIR

    @property
    def log_file(self) -> Path:
        return self.state_dir / "lab.log"


class LabSession:
    """A running JupyterLab, as a context manager: inside it the server answers, after it nothing is left."""

    def __init__(self, plan: SessionPlan, *, stop: threading.Event | None = None) -> None:
        self.plan = plan
        self.token = secrets.token_urlsafe(32)
        self.port = plan.port
        self._mark = secrets.token_hex(16)
        self._stop = stop or threading.Event()
        self._private = Path()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address to open, with the token."""
        return f"http://{HOST}:{self.port}/lab/tree/{quote(self.plan.notebook)}?token={self.token}"

    def __enter__(self) -> LabSession:
        """Start JupyterLab and wait until it answers, or until the stop event is set.

        Raises
        ------
        UsageError
            When the port is taken or the workspace cannot be written.
        PlatformError
            When JupyterLab ends or does not answer in time.
        """
        if self.plan.port:
            check_port(self.plan.port)
        self._private = Path(tempfile.mkdtemp(prefix="knb-", dir="/tmp"))
        try:
            self._start()
            self._wait_until_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def wait(self) -> None:
        """Return when the stop event is set or the user has shut JupyterLab down in the browser.

        Raises
        ------
        PlatformError
            When JupyterLab ended by an error.
        """
        if self._process is None:
            return
        while not self._stop.wait(0.2):
            code = self._process.poll()
            if code == 0:
                return
            if code is not None:
                raise self._ended(code)

    def close(self) -> None:
        """End JupyterLab, its kernels and terminals, and all that these started."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_GRACE_S)
            end_marked(self._mark, grace_s=1.0)
            self._process.wait()
            self._process = None
        if self._private != Path():
            shutil.rmtree(self._private, ignore_errors=True)

    def _start(self) -> None:
        plan = self.plan
        config = LabConfig(
            workspace=plan.workspace, state=plan.state_dir, private=self._private, port=plan.port, token=self.token
        )
        try:
            config.write()
            log = os.open(plan.log_file, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UsageError(
                f"The workspace {plan.workspace} cannot be written: {error.strerror}.",
                "Set KAAPANA_NB_WORKSPACE to a directory that you may write to.",
            ) from error
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "kaapana_nb.devserver.launch", str(os.getpid())],
                cwd=plan.workspace,
                env={**kernel_environ(os.environ, plan), **config.environ(), MARK: self._mark},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in the terminal reaches this process alone, which ends the others
            )
        finally:
            os.close(log)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not self._stop.wait(0.1):
            process = self._process
            if process is not None and (code := process.poll()) is not None:
                raise self._ended(code)
            if self._find_port() and self._answers():
                return
            if time.monotonic() > deadline:
                raise PlatformError(
                    f"JupyterLab did not answer within {READY_TIMEOUT_S:.0f} s.",
                    f"See {self.plan.log_file}; on a busy machine start again.",
                )

    def _find_port(self) -> bool:
        """Read the port that JupyterLab took from the file it writes when it listens."""
        for file in (self._private / "run").glob("jpserver-*.json"):
            with contextlib.suppress(OSError, ValueError, KeyError):  # still being written
                self.port = int(json.loads(file.read_bytes())["port"])
                return True
        return False

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=5)
        try:
            connection.request("GET", "/api/status", headers={"Authorization": f"token {self.token}"})
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _ended(self, code: int) -> PlatformError:
        lines = self.plan.log_file.read_text(errors="replace").replace(self.token, "…").strip().splitlines()
        said = f" It said: {lines[-1].strip()[:300]}" if lines else ""
        return PlatformError(
            f"JupyterLab ended with exit code {code}.{said}",
            f"See {self.plan.log_file}; `make setup` repairs a damaged environment.",
        )


def check_port(port: int) -> None:
    """Raise `UsageError` unless `port` of 127.0.0.1 can be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or "no port number"
            raise UsageError(
                f"Port {port} of {HOST} cannot be used: {reason}.", "Leave --port out, or name a free one."
            ) from error


def kernel_environ(environ: Mapping[str, str], plan: SessionPlan) -> dict[str, str]:
    """The environment of a dev session: the run, but no operator directories.

    A notebook names its own input and output there; under the platform the operator does.
    The programs of this Python environment come first on PATH, for terminals and ``!`` cells.
    """
    dropped = {OPERATOR_IN_DIR, OPERATOR_OUT_DIR}
    values = {name: value for name, value in environ.items() if name not in dropped}
    values[WORKFLOW_DIR] = str(plan.run_dir)
    values[BATCH_NAME] = plan.batch_name
    values["PATH"] = os.pathsep.join([str(Path(sys.prefix, "bin")), environ.get("PATH", os.defpath)])
    return values


@contextlib.contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C, SIGTERM and a closed terminal set, instead of ending this process half-way."""
    event = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    previous = {number: signal.signal(number, lambda *_: event.set()) for number in numbers}
    try:
        yield event
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
