"""A dev session ends whole: no server, kernel, terminal or worker is left, however it is ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from jupyter_client import BlockingKernelClient
from lab_session import start_lab

STUBBORN = """
import subprocess, sys
subprocess.Popen(
    [sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"],
    start_new_session=True, stdout=subprocess.PIPE,
).stdout.readline()
"""  # noqa: E501


def processes_of(home: Path) -> dict[int, str]:
    """Processes that have `home` in their environment: everything that the session started."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"KAAPANA_NB_HOME={home}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
    return found


def server_of(home: Path) -> int:
    return next(pid for pid, command in processes_of(home).items() if "devserver.launch" in command)


def runtime_dir(home: Path) -> Path:
    """Jupyter's runtime directory, below the session's private one."""
    variables = Path(f"/proc/{server_of(home)}/environ").read_bytes().decode().split("\0")
    return Path(next(value.partition("=")[2] for value in variables if value.startswith("JUPYTER_RUNTIME_DIR=")))


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home of the test's own, and no process of it left behind, also where the test fails."""
    yield tmp_path
    for pid in processes_of(tmp_path):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def use_everything(url: str, home: Path) -> None:
    """Start a kernel, a terminal, and in the kernel a process that ignores SIGTERM in a session of its own."""
    parts = urlsplit(url)
    headers = {"Authorization": f"token {parse_qs(parts.query)['token'][0]}"}
    with httpx.Client(base_url=f"http://{parts.netloc}", headers=headers, timeout=30, trust_env=False) as client:
        client.post("/api/terminals").raise_for_status()
        kernel = client.post("/api/kernels", json={"name": "python3"}).raise_for_status().json()["id"]
    connection = BlockingKernelClient(connection_file=str(runtime_dir(home) / f"kernel-{kernel}.json"))
    connection.load_connection_file()
    connection.start_channels()
    try:
        wait_for(connection)
        reply = connection.execute_interactive(STUBBORN, timeout=60)
    finally:
        connection.stop_channels()
        connection.context.term()
    assert reply["content"]["status"] == "ok"


def wait_for(connection: BlockingKernelClient, seconds: float = 90) -> None:
    """Wait until the kernel answers. On a busy machine the client takes a late heartbeat for the kernel's death."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return connection.wait_for_ready(timeout=max(1.0, deadline - time.monotonic()))
        except RuntimeError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def eventually(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_all_that_the_session_started(home: Path, sample_run: Path, number: signal.Signals) -> None:
    process, url = start_lab("--batch", str(sample_run), home=home)
    use_everything(url, home)
    commands = " ".join(processes_of(home).values())
    assert "ipykernel" in commands
    assert "SIG_IGN" in commands
    private = runtime_dir(home).parent
    assert private.exists()

    process.send_signal(number)

    assert process.wait(30) == 0
    assert processes_of(home) == {}
    assert not private.exists()


def test_server_ends_when_the_command_is_killed(home: Path, sample_run: Path) -> None:
    process, _ = start_lab("--batch", str(sample_run), home=home)
    private = runtime_dir(home).parent
    process.kill()
    process.wait()
    assert eventually(lambda: processes_of(home) == {}, 20)
    assert not private.exists()


def test_session_whose_server_dies_says_so(home: Path, sample_run: Path) -> None:
    process, _ = start_lab("--batch", str(sample_run), home=home, stderr=subprocess.PIPE)
    os.kill(server_of(home), signal.SIGKILL)
    assert process.stderr is not None
    with process.stderr as lines:
        said = lines.read()
    assert process.wait(30) == 1
    assert "JupyterLab ended with exit code -9" in said
    assert "remedy: " in said
    assert "Traceback" not in said


def test_taken_port_is_one_clear_error(tmp_path: Path, sample_run: Path) -> None:
    from kaapana_nb.cli.main import main

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code = main(["lab", "--batch", str(sample_run), "--port", str(taken.getsockname()[1])])
    assert code == 2
