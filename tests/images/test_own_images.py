"""The images below docker/: built by our own builders, small enough, and they do what they are for as uid 1000."""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import nbformat
import pytest

from kaapana_nb.clients.containers import Mount
from kaapana_nb.clients.layout import OciLayout
from kaapana_nb.errors import BuildError, UsageError
from kaapana_nb.settings import Settings
from kaapana_nb.ship.build import BuiltImage, build_image
from kaapana_nb.ship.own_images import OWN_IMAGES, make_own_context

pytestmark = pytest.mark.images
DOCKER = Path(__file__).parent.parent.parent / "docker"


@pytest.fixture(scope="module")
def make_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docker_make", DOCKER / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def build_own(image_home: Settings, tmp_path_factory) -> Callable[[str], BuiltImage]:
    """Build one of our images; wheels are taken from, and kept in, this machine's own store."""
    kept = Settings.from_environ().wheels_dir
    kept.mkdir(parents=True, exist_ok=True)
    if not image_home.wheels_dir.exists():
        image_home.wheels_dir.symlink_to(kept)
    work = tmp_path_factory.mktemp("own-images")

    def build(name: str) -> BuiltImage:
        try:
            return build_image(make_own_context(name, DOCKER, work), settings=image_home)
        except BuildError as error:
            if "pip could not download" in error.problem:
                pytest.skip(f"no package index at hand: {error.problem}")
            raise

    return build


@pytest.mark.parametrize("name", OWN_IMAGES)
def test_sizes_users_and_labels(build_own, make_script, name):
    image = build_own(name)
    config = OciLayout(image.layout).image().config
    assert make_script.unpacked_mb(image) < OWN_IMAGES[name].max_size_mb
    assert config.user == "1000:1000"
    assert config.labels["IMAGE"] == name
    assert not (DOCKER / name / "files" / "requirements.txt").exists()


def test_an_image_that_we_do_not_have(tmp_path):
    with pytest.raises(UsageError, match="no image 'other'"):
        make_own_context("other", DOCKER, tmp_path)


def test_jupyterlab_serves(build_own, podman):
    image = build_own("jupyterlab")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environ = {"JUPYTER_PORT": port, "INGRESS_PATH": "/applications/x/", "WORKSPACE": "/tmp"}
    lines: list[str] = []
    ended: list[object] = []

    def serve() -> None:
        ended.append(podman.run(image.layout, environ=environ, network=True, timeout_s=90, log=lines.append))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        healthy = [sys.executable, str(DOCKER / "jupyterlab/files/healthy.py")]
        assert subprocess.run(healthy, env={**environ, "JUPYTER_PORT": "1"}, capture_output=True).returncode == 1
        for _ in range(160):
            if subprocess.run(healthy, env=environ, capture_output=True).returncode == 0:
                break
            assert not ended, lines
            time.sleep(0.5)
        else:
            pytest.fail("\n".join(lines))
        assert any("token=" in line for line in lines)
    finally:
        for pid in _servers(port):
            subprocess.run(["kill", pid], check=False)
        thread.join()


def _servers(port: str) -> list[str]:
    """Processes with our port in their environment that run JupyterLab: the container's own."""
    found = []
    for directory in Path("/proc").iterdir():
        try:
            if f"JUPYTER_PORT={port}".encode() in (directory / "environ").read_bytes().split(b"\0"):
                command = (directory / "cmdline").read_bytes().split(b"\0")
                if command[1:3] == [b"-m", b"jupyterlab"]:
                    found.append(directory.name)
        except OSError:
            continue
    return found


def test_notebook_operator_runs_and_reports(build_own, podman, tmp_path):
    image = build_own("notebook-operator")
    data = tmp_path / "data"
    data.mkdir()
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print(6 * 7)")])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, data / "in.ipynb")
    data.chmod(0o777)
    script = "python3 -m papermill /data/in.ipynb /data/out.ipynb && python3 -m nbconvert --to html /data/out.ipynb"
    result = podman.run(
        image.layout,
        environ={"HOME": "/tmp"},
        mounts=[Mount(source=data, target="/data")],
        command=["sh", "-c", script],
    )
    assert result.exit_code == 0, result.output_tail
    assert json.loads((data / "out.ipynb").read_text())["cells"][0]["outputs"][0]["text"] == ["42\n"]
    assert "42" in (data / "out.html").read_text()


@pytest.mark.parametrize("action", ["copy", "remove"])
def test_dag_installer(build_own, podman, tmp_path, action):
    image = build_own("dag-installer")
    source, target = tmp_path / "source", tmp_path / "target"
    for path, text in (
        ("kaapana/tmp/dags/dag_x.py", "op = Op(image=f'{DEFAULT_REGISTRY}/x:{VERSION}')\n"),
        ("kaapana/tmp/plugins/x/Op.py", "pass\n"),
    ):
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_text(text)
    (target / "dags").mkdir(parents=True)
    (target / "dags/other.py").write_text("# another extension's\n")
    if action == "remove":
        (target / "dags/dag_x.py").write_text("old")
    for path in (target, target / "dags"):
        path.chmod(0o777)
    result = podman.run(
        image.layout,
        environ={"SOURCE_ROOT": "/source", "TARGET_DIR": "/target", "ACTION": action},
        mounts=[Mount(source=source, target="/source", read_only=True), Mount(source=target, target="/target")],
    )
    assert result.exit_code == 0, result.output_tail
    assert (target / "dags/other.py").exists()
    if action == "copy":
        assert (target / "dags/dag_x.py").read_text().startswith("op = ")
        assert (target / "plugins/x/Op.py").exists()
        assert "image f'{DEFAULT_REGISTRY}/x:{VERSION}'" in result.output_tail
    else:
        assert not (target / "dags/dag_x.py").exists()
    wrong = podman.run(image.layout, environ={"TARGET_DIR": "/nowhere"})
    assert wrong.exit_code == 2
