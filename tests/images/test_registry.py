"""The registry client against the real docker-registry: TLS, passwords, breaks, a full disk, kills at any moment."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from kaapana_nb.clients.credentials import Credentials
from kaapana_nb.clients.oci import CONFIG, LAYER_TAR, Descriptor, Manifest
from kaapana_nb.clients.registry import RegistryClient
from kaapana_nb.emulator.registry import LocalRegistry
from kaapana_nb.errors import RegistryError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.images

DATA = b"".join(hashlib.sha256(str(number).encode()).digest() for number in range(200_000))  # 6.4 MB
BLOB = Descriptor.of(DATA, LAYER_TAR)


def fetch(client: RegistryClient, repository: str) -> bytes:
    file = io.BytesIO()
    client.fetch_blob(repository, BLOB, file)
    return file.getvalue()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private authority and a certificate of localhost signed by it."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    directory = tmp_path_factory.mktemp("tls")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=directory, check=True, capture_output=True)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=a private authority",
            "-keyout", "ca.key", "-out", "ca.pem")  # fmt: skip
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout", "server.key",
            "-out", "server.csr")  # fmt: skip
    (directory / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
            "-extfile", "names", "-out", "server.pem")  # fmt: skip
    return directory


def test_a_private_authority(certificates, tmp_path):
    with LocalRegistry(tmp_path, certificate=certificates / "server.pem", key=certificates / "server.key") as registry:
        login = registry.credentials
        with RegistryClient(registry.host, credentials=login, ca_file=certificates / "ca.pem") as client:
            client.probe("x")
            client.upload_blob("x", BLOB, DATA)
            assert fetch(client, "x") == DATA
        with (
            RegistryClient(registry.host, credentials=login, plain_http=False) as client,
            pytest.raises(RegistryError, match="not signed by an authority") as caught,
        ):
            client.probe()
        assert "--ca-file" in caught.value.remedy
        with (
            RegistryClient(registry.host, credentials=login) as client,
            pytest.raises(RegistryError, match="speaks TLS, and was asked over plain HTTP"),
        ):
            client.probe()
    with pytest.raises(UsageError, match="no file with certificates"):
        RegistryClient("localhost:1", ca_file=certificates / "server.key")


def test_tls_to_a_port_without(registry):
    with (
        RegistryClient(registry.host, plain_http=False) as client,
        pytest.raises(RegistryError, match="does not speak TLS") as caught,
    ):
        client.probe()
    assert "--plain-http" in caught.value.remedy


def test_a_dead_port_is_known_within_a_second():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = time.monotonic()
    with RegistryClient(f"localhost:{port}") as client, pytest.raises(RegistryError, match="cannot be reached"):
        client.probe("x")
    assert time.monotonic() - started < 1


def test_passwords(registry):
    wrong = Credentials(username=registry.credentials.username, password="not-it-77")
    with RegistryClient(registry.host, credentials=wrong) as client, pytest.raises(RegistryError) as caught:
        client.probe("x")
    assert "refused the password of user 'kaapana'" in caught.value.problem
    assert "not-it-77" not in str(caught.value)
    with RegistryClient(registry.host) as client, pytest.raises(RegistryError, match="wants credentials"):
        client.probe("x")


def test_a_read_only_registry(tmp_path):
    with (
        LocalRegistry(tmp_path, read_only=True) as registry,
        registry.client() as client,
        pytest.raises(RegistryError, match="is read-only"),
    ):
        client.probe("x")


def test_a_full_disk(tmp_path):
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small file system needs root")
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(small)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        with LocalRegistry(small) as registry, registry.client() as client:
            client.probe("x")
            started = time.monotonic()
            with pytest.raises(RegistryError, match="The disk of registry"):
                client.upload_blob("x", BLOB, DATA)
            assert time.monotonic() - started < 5
    finally:
        subprocess.run(["umount", str(small)], check=True)


class CuttingProxy:
    """A TCP proxy that cuts a connection after so many bytes from the client; then none any more."""

    def __init__(self, target: tuple[str, int], budgets: list[int]) -> None:
        self._target, self._budgets = target, budgets
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"localhost:{self._listener.getsockname()[1]}"
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                threading.Thread(target=self._copy, args=(near, far, True), daemon=True).start()
                threading.Thread(target=self._copy, args=(far, near, False), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
                if counted and self._budgets:
                    self._budgets[0] -= len(data)
                    if self._budgets[0] <= 0:
                        self._budgets.pop(0)
                        self.cuts += 1
                        for side in (source, sink):
                            side.shutdown(socket.SHUT_RDWR)
                        break
        for side in (source, sink):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_WR)
        if not counted:
            source.close()
            sink.close()

    def close(self) -> None:
        self._listener.close()


@pytest.mark.parametrize("budgets", [[1_500_000], [200_000, 900_000, 2_000_000]], ids=str)
def test_an_upload_whose_connection_is_cut(registry, budgets):
    port = int(registry.host.rpartition(":")[2])
    proxy = CuttingProxy(("127.0.0.1", port), list(budgets))
    repository = f"cut-{len(budgets)}"
    try:
        with RegistryClient(proxy.host, credentials=registry.credentials, chunk=1 << 20) as client:
            done = client.upload_blob(repository, BLOB, DATA)
            assert fetch(client, repository) == DATA
    finally:
        proxy.close()
    assert proxy.cuts == len(budgets)
    assert len(DATA) <= done.bytes_sent <= len(DATA) * (1 + len(budgets))


def _manifest_of(client: RegistryClient, repository: str) -> str:
    config = b'{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["%s"]}}'
    data = config % BLOB.digest.encode()
    stored = Descriptor.of(data, CONFIG)
    client.upload_blob(repository, BLOB, DATA)
    client.upload_blob(repository, stored, data)
    manifest = Manifest(config=stored, layers=(BLOB,))
    return client.put_manifest(repository, "1", manifest.to_bytes(), manifest.media_type)


def test_a_registry_killed_in_mid_push(tmp_path):
    """Fourteen times at a random moment; the push is repeated on the registry that came back."""
    if shutil.which("docker-registry") is None:
        pytest.skip("docker-registry is not installed")
    random.seed(5)
    registry = LocalRegistry(tmp_path)
    registry.start()
    port = int(registry.host.rpartition(":")[2])
    try:
        for attempt in range(14):
            repository = f"killed-{attempt}"
            timer = threading.Timer(random.uniform(0, 0.08), registry.kill)
            with RegistryClient(
                registry.host, credentials=registry.credentials, chunk=256 << 10, sleep=lambda _: None
            ) as client:
                timer.start()
                with contextlib.suppress(RegistryError):
                    _manifest_of(client, repository)
            timer.join()
            registry.stop()
            registry = LocalRegistry(tmp_path, port=port, credentials=registry.credentials)
            registry.start()
            with registry.client() as client:
                digest = _manifest_of(client, repository)
                assert client.digest_of(repository, "1") == digest
                assert fetch(client, repository) == DATA
    finally:
        registry.stop()


PUSHER = """
import sys
from pathlib import Path
from kaapana_nb.settings import Settings
from kaapana_nb.clients.credentials import Credentials
from kaapana_nb.clients.registry import RegistryClient
from kaapana_nb.ship.build import build_image, push_image, push_target
home, context, wheelhouse, host, repository = sys.argv[1:]
settings = Settings(home=Path(home), workspace=Path(home), jobs=1)
with RegistryClient(host, credentials=Credentials(username="kaapana", password=sys.stdin.read()), chunk=256 << 10) as c:
    image = build_image(Path(context), settings=settings, wheelhouse=Path(wheelhouse), client=c)
    print(push_image(image, push_target(host + "/" + repository, image.reference), client=c).digest)
"""


@pytest.fixture
def pusher(image_home, wheelhouse, make_context, registry, tmp_path) -> Iterator[object]:
    """Build and push in a process of its own, in a home that shares the base image only."""
    started: list[subprocess.Popen[str]] = []
    home = tmp_path / "home"
    shutil.copytree(image_home.images_dir / "local-only", home / "images/local-only")
    context = make_context("killed-tool")

    def start(repository: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", PUSHER, str(home), str(context), str(wheelhouse), registry.host, repository],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        assert process.stdin is not None
        process.stdin.write(registry.credentials.password)
        process.stdin.close()
        return process

    start.home = home  # type: ignore[attr-defined]
    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_a_builder_killed_at_any_moment(pusher, client):
    """Six times SIGKILL at a random moment of build and push; the repetition gives the same, whole image."""
    random.seed(7)
    started = time.monotonic()
    whole = pusher("whole")
    digest = whole.stdout.read().strip()
    length = time.monotonic() - started
    assert whole.wait() == 0
    assert digest.startswith("sha256:")
    for attempt in range(6):
        for name in ("images/killed-tool", "images/.layers"):
            shutil.rmtree(pusher.home / name, ignore_errors=True)
        process = pusher(f"try{attempt}")
        time.sleep(random.uniform(0.3, 0.95) * length)
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        process.wait()
        again = pusher(f"try{attempt}")
        assert again.stdout.read().strip() == digest
        assert again.wait() == 0
        repository = f"try{attempt}/killed-tool"
        _, data = client.manifest(repository, digest)
        for layer in Manifest.parse(data).layers:
            client.fetch_blob(repository, layer, io.BytesIO())
