"""`kaapana-nb build` as a user calls it: what it prints, what it refuses, and how fast it refuses."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kaapana_nb.emulator.registry import LocalRegistry

if TYPE_CHECKING:
    from kaapana_nb.settings import Settings

pytestmark = pytest.mark.images


@pytest.fixture
def command(image_home: Settings, wheelhouse: Path, tmp_path: Path):
    """Run the command in a home of its own; gives the finished process."""

    def run(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        return subprocess.run(
            [sys.executable, "-m", "kaapana_nb", "build", *words, "--wheelhouse", str(wheelhouse)],
            env={**kept, "HOME": str(tmp_path), "KAAPANA_NB_HOME": str(image_home.home), **environ},
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    return run


def refused(done: subprocess.CompletedProcess[str], problem: str, code: int = 1) -> None:
    assert done.returncode == code, done.stderr
    assert problem in done.stderr
    assert "remedy:" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_json_and_plain_output(command, make_context, registry, auth_file, tmp_path):
    export = make_context("cli-tool").parent.parent
    done = command(str(export), "--push", f"{registry.host}/cli", "--creds-file", str(auth_file), "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert list(document) == ["images"]
    image = document["images"][0]
    assert list(image) == ["name", "reference", "digest", "bytes_uploaded", "seconds"]
    assert image["reference"] == f"{registry.host}/cli/cli-tool:0.1.0@{image['digest']}"
    assert (export / "cli-tool.cdx.json").is_file()
    again = command(str(export), "--push", f"{registry.host}/cli", REGISTRY_AUTH_FILE=str(auth_file))
    assert again.stdout == f"{image['reference']}\n"
    login = registry.credentials
    third = command(
        str(export), "--push", f"{registry.host}/cli", "--tag", "other", "--archive", str(tmp_path / "a.tar"),
        KAAPANA_NB_REGISTRY_USER=login.username, KAAPANA_NB_REGISTRY_PASSWORD=login.password,
    )  # fmt: skip
    assert third.stdout == f"{registry.host}/cli/cli-tool:other@{image['digest']}\n"
    assert (tmp_path / "a.tar").stat().st_size > 30_000_000
    assert f"from kaapana (credentials from {auth_file})" in again.stderr
    tagged = command(str(export), "--platform-version", "0.6.1")
    assert tagged.stdout == f"cli-tool:0.6.1@{image['digest']}\n"
    assert "neither a registry (--push) nor a file (--archive) was named" in tagged.stderr
    for process in (done, again, third):
        assert login.password not in process.stdout + process.stderr


def test_refusals_before_the_build(command, make_context, registry, tmp_path):
    export = str(make_context("cli-tool").parent.parent)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dead = f"localhost:{free.getsockname()[1]}"
    before = {path.name for path in tmp_path.iterdir()}
    started = time.monotonic()
    done = command(export, "--push", dead)
    refused(done, "cannot be reached")
    assert "COPY" not in done.stderr  # nothing was built
    refused(command(export, "--push", registry.host), "wants credentials")
    wrong = command(
        export, "--push", registry.host, KAAPANA_NB_REGISTRY_USER="kaapana", KAAPANA_NB_REGISTRY_PASSWORD="wrong-12"
    )
    refused(wrong, "refused the password")
    assert "wrong-12" not in wrong.stderr
    refused(command(export, "--push", "https://example.org"), "no registry's address", 2)
    refused(command(export, "--push", "nowhere"), "no registry's address", 2)
    refused(command(export, "--creds-file", "/nowhere", "--push", registry.host), "cannot be read")
    refused(command(export, "--builder", "magic"), "no builder", 2)
    refused(command(str(tmp_path / "nothing")), "no processing-containers")
    assert time.monotonic() - started < 16
    assert {path.name for path in tmp_path.iterdir()} == before


def test_a_job_for_the_cluster(command, make_context, tmp_path):
    export = str(make_context("cli-tool").parent.parent)
    file = tmp_path / "job.json"
    done = command(
        export, "--job", str(file), "--push", "registry.example.org/tools", "--base", "registry.example.org/base:1"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "registry.example.org/tools/cli-tool:0.1.0\n"
    assert json.loads(file.read_text())["items"][1]["kind"] == "Job"
    refused(command(export, "--job", str(file)), "--job takes one processing container", 2)


def test_interrupting_a_container_ends_it(podman, image_home, tmp_path):
    """SIGTERM to a process that runs a container leaves neither container nor child."""
    script = (
        "import sys\nfrom pathlib import Path\nfrom kaapana_nb.clients.podman import PodmanRunner\n"
        "runner = PodmanRunner(Path(sys.argv[1]))\n"
        "runner.run(Path(sys.argv[2]), environ={}, command=['python3', '-c', "
        "'import time; print(1234, flush=True); time.sleep(300)'], log=lambda line: print(line, flush=True))\n"
    )
    layout = image_home.images_dir / "local-only/base-python-cpu/latest"
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(podman._directory), str(layout)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "1234\n"
    child.terminate()
    assert child.wait(30) == 128 + 15
    child.stdout.close()
    assert podman._podman("ps", "--all", "--quiet").stdout.strip() == ""
    assert not any(
        b"time.sleep(300)" in (path / "cmdline").read_bytes()
        for path in Path("/proc").iterdir()
        if path.name.isdigit() and (path / "cmdline").exists()
    )


def test_the_registry_needs_its_program(tmp_path, monkeypatch):
    if shutil.which("docker-registry", path="/usr/bin:/usr/local/bin") is not None:
        monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    from kaapana_nb.errors import PlatformError

    with pytest.raises(PlatformError, match="docker-registry is not installed"):
        LocalRegistry(tmp_path).start()
