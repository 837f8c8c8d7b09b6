"""Fixtures of the image tests: a home with the base image, contexts made of small wheels, a real registry."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kaapana_nb.clients.podman import PodmanRunner
from kaapana_nb.emulator.registry import LocalRegistry
from kaapana_nb.settings import Settings
from kaapana_nb.ship.base_image import ensure_base_image

if TYPE_CHECKING:
    from kaapana_nb.clients.containers import ContainerRunner
    from kaapana_nb.clients.registry import RegistryClient

DOCKERFILE = """\
FROM local-only/base-python-cpu:latest
LABEL IMAGE="{name}"
LABEL VERSION="0.1.0"
LABEL BUILD_IGNORE="False"
ENV PYTHONPATH=/kaapana/packages PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /kaapana/app
COPY files/requirements.txt /kaapana/app/requirements.txt
COPY files/wheels /kaapana/app/wheels
RUN python3 -m pip install --no-cache-dir --no-compile --no-deps --target /kaapana/packages \\
    -r /kaapana/app/requirements.txt
COPY files/app.py /kaapana/app/app.py
CMD ["python3", "/kaapana/app/app.py"]
"""

WheelMaker = Callable[..., Path]
ContextMaker = Callable[..., Path]


def make_wheel(directory: Path, name: str, version: str, files: Mapping[str, bytes], entry_points: str = "") -> Path:
    """A wheel of `files`, by hand (PEP 427)."""
    directory.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    members = dict(files)
    members[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
    members[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    if entry_points:
        members[f"{info}/entry_points.txt"] = entry_points.encode()
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}\n"
        for path, data in members.items()
    )
    members[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    path = directory / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in members.items():
            archive.writestr(zipfile.ZipInfo(member, (2020, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
    return path


@pytest.fixture(scope="session")
def wheel_maker() -> WheelMaker:
    return make_wheel


@pytest.fixture(scope="session")
def image_home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of a home of its own, with the base image in it."""
    home = tmp_path_factory.mktemp("image-home")
    settings = Settings(home=home, workspace=home / "workspace", jobs=2)
    ensure_base_image(settings)
    return settings


@pytest.fixture(scope="session")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small packages: one pure, one with a big file and a script."""
    directory = tmp_path_factory.mktemp("wheelhouse")
    make_wheel(directory, "small", "1.0", {"small/__init__.py": b"VALUE = 41\n"})
    big = b"".join(hashlib.sha256(str(number).encode()).digest() for number in range(180_000))  # 5.8 MB
    make_wheel(
        directory,
        "large",
        "2.0",
        {"large/__init__.py": b"def main():\n    print('large main')\n", "large/data.bin": big},
        "[console_scripts]\nlarge-main = large:main\n",
    )
    return directory


@pytest.fixture
def make_context(tmp_path: Path) -> ContextMaker:
    """Make a processing container's directory as an export writes it."""

    def make(name: str = "probe-tool", app: str = "print('ran')\n", directory: Path | None = None) -> Path:
        context = (directory or tmp_path) / "processing-containers" / name
        shutil.rmtree(context, ignore_errors=True)
        (context / "files").mkdir(parents=True)
        make_wheel(context / "files/wheels", "own", "0.1", {"own/__init__.py": b"NAME = 'own'\n"})
        (context / "files/requirements.txt").write_text(
            "# complete\n/kaapana/app/wheels/own-0.1-py3-none-any.whl\nlarge==2.0\nsmall==1.0\n"
        )
        (context / "files/app.py").write_text(app)
        (context / "Dockerfile").write_text(DOCKERFILE.format(name=name))
        return context

    return make


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRegistry]:
    """The real docker-registry with a password."""
    if shutil.which("docker-registry") is None:
        pytest.skip("docker-registry is not installed")
    with LocalRegistry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def client(registry: LocalRegistry) -> Iterator[RegistryClient]:
    with registry.client() as opened:
        yield opened


@pytest.fixture
def auth_file(registry: LocalRegistry, tmp_path: Path) -> Path:
    """The registry's credentials as Docker keeps them."""
    login = registry.credentials
    token = base64.b64encode(f"{login.username}:{login.password}".encode()).decode()
    path = tmp_path / "auth.json"
    path.write_text(json.dumps({"auths": {registry.host: {"auth": token}}}))
    return path


@pytest.fixture(scope="session")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContainerRunner]:
    """Podman with storage of the test session's own, where it works."""
    runner = PodmanRunner(tmp_path_factory.mktemp("containers"))
    reason = runner.unusable()
    if reason:
        pytest.skip(f"podman cannot run containers here: {reason}")
    yield runner
    runner.remove_storage()
