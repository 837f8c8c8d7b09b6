"""A terminal of the session is a shell in which this environment's programs are found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import websocket
from lab_session import end, start_lab

from kaapana_nb import __version__


@pytest.fixture(params=["bash", "user's bash", "sh"])
def shell(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A user whose ``.bashrc`` sets PATH anew: with no shell named, with bash named, and on a machine without bash."""
    user, programs = tmp_path / "user", tmp_path / "programs"
    user.mkdir()
    (user / ".bashrc").write_text("PATH=/usr/bin:/bin\nOWN=bash-of-the-user\n")
    monkeypatch.setenv("HOME", str(user))
    monkeypatch.delenv("SHELL", raising=False)
    if request.param == "user's bash":
        monkeypatch.setenv("SHELL", str(shutil.which("bash")))
    if request.param == "sh":
        programs.mkdir()
        (programs / "sh").symlink_to(str(shutil.which("sh")))
        monkeypatch.setenv("PATH", str(programs))
    return str(request.param)


@pytest.fixture
def session(shell: str, tmp_path: Path, sample_run: Path) -> Iterator[str]:
    process, url = start_lab("--batch", str(sample_run), home=tmp_path / "home")
    try:
        yield url
    finally:
        assert end(process) == 0


def type_into_terminal(url: str, line: str, until: str) -> str:
    """Open a terminal as JupyterLab's page does, type `line`, and return what was shown up to `until`."""
    parts = urlsplit(url)
    headers = {"Authorization": f"token {parse_qs(parts.query)['token'][0]}"}
    with httpx.Client(base_url=f"http://{parts.netloc}", headers=headers, timeout=30, trust_env=False) as client:
        name = client.post("/api/terminals").raise_for_status().json()["name"]
    connection = websocket.create_connection(
        f"ws://{parts.netloc}/terminals/websocket/{name}", timeout=30, header=headers, http_no_proxy=[parts.hostname]
    )
    shown = ""
    try:
        connection.send(json.dumps(["stdin", f"{line}\r"]))
        while until not in shown:
            kind, *values = json.loads(connection.recv())
            shown += values[0] if kind == "stdout" else ""
    except websocket.WebSocketTimeoutException:
        pytest.fail(f"{until!r} was not shown, but: {shown!r}")
    finally:
        connection.close()
    return shown


def test_kaapana_nb_is_found_in_a_terminal(session: str, shell: str) -> None:
    shown = type_into_terminal(session, 'kaapana-nb --version; echo "$OWN"/"done"', "/done")
    assert f"kaapana-nb {__version__}" in shown
    assert ("bash-of-the-user/done" in shown) == (shell != "sh")
