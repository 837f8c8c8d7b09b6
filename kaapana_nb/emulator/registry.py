"""A real container registry on this machine: Debian's docker-registry with a password, on a loopback port."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Self

from kaapana_nb.clients.credentials import Credentials
from kaapana_nb.clients.registry import RegistryClient
from kaapana_nb.errors import PlatformError
from kaapana_nb.files import write_atomic

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

_READY_S = 10.0


class LocalRegistry:
    """``docker-registry serve`` as a context manager.

    Images survive in `directory`; the user's password is new at every start and lives in this object only.

    Parameters
    ----------
    directory
        Storage, settings and log of the registry.
    port
        Loopback port; 0 takes a free one.
    certificate, key
        PEM files; with them the registry speaks TLS.
    credentials
        User and password instead of random ones.
    read_only
        Refuse every push.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int = 0,
        certificate: Path | None = None,
        key: Path | None = None,
        credentials: Credentials | None = None,
        read_only: bool = False,
    ) -> None:
        self.directory = directory
        self.credentials = credentials or Credentials(username="kaapana", password=secrets.token_urlsafe(18))
        self._certificate, self._key, self._read_only = certificate, key, read_only
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        """Address for references: ``localhost:<port>``."""
        return f"localhost:{self._port}"

    @property
    def log_file(self) -> Path:
        """What the registry says."""
        return self.directory / "registry.log"

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises
        ------
        PlatformError
            When docker-registry is not installed or does not come up.
        """
        program = shutil.which("docker-registry") or shutil.which("docker-registry", path="/usr/bin:/usr/local/bin")
        if program is None:
            raise PlatformError(
                "The program docker-registry is not installed; the local registry needs it.",
                "Install it: apt-get install docker-registry; or write images to files: --archive FILE.",
            )
        self.directory.mkdir(parents=True, exist_ok=True)
        self._port = self._port or _free_port()
        settings = self.directory / "config.yml"
        htpasswd = self.directory / "htpasswd"
        write_atomic(htpasswd, _htpasswd(self.credentials), mode=0o600)
        write_atomic(settings, json.dumps(self._settings(htpasswd), indent=1).encode(), mode=0o600)
        with self.log_file.open("wb") as log:
            self._process = subprocess.Popen(
                [program, "serve", str(settings)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, env={"PATH": "/usr/bin:/bin", "OTEL_TRACES_EXPORTER": "none"},
            )  # fmt: skip
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def _settings(self, htpasswd: Path) -> dict[str, object]:
        """The registry's settings; JSON is YAML."""
        http: dict[str, object] = {"addr": f"127.0.0.1:{self._port}", "secret": secrets.token_hex(16)}
        if self._certificate is not None:
            http["tls"] = {"certificate": str(self._certificate), "key": str(self._key)}
        return {
            "version": 0.1,
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(self.directory / "storage")},
                "delete": {"enabled": True},
                "maintenance": {"readonly": {"enabled": self._read_only}},
            },
            "http": http,
            "auth": {"htpasswd": {"realm": "kaapana-nb", "path": str(htpasswd)}},
        }

    def _wait(self) -> None:
        end = time.monotonic() + _READY_S
        while time.monotonic() < end:
            if self.pid is None:
                break
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=0.5):
                return
            time.sleep(0.02)
        tail = self.log_file.read_text(errors="replace")[-400:]
        raise PlatformError(
            f"docker-registry did not come up on port {self._port}: {tail or 'it said nothing'}.",
            f"Look into {self.log_file}.",
        )

    def stop(self) -> None:
        """End the server; it is asked first, and killed after five seconds."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """End the server at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def client(self) -> RegistryClient:
        """A client with the registry's own credentials."""
        return RegistryClient(self.host, credentials=self.credentials, ca_file=self._certificate)


def _htpasswd(credentials: Credentials) -> bytes:
    """A bcrypt line; the password goes over standard input, never into an argument list."""
    program = shutil.which("htpasswd")
    if program is None:
        raise PlatformError(
            "The program htpasswd is not installed; the local registry needs it for its password.",
            "Install it: apt-get install apache2-utils.",
        )
    done = subprocess.run(
        [program, "-Bin", credentials.username], input=credentials.password.encode(), capture_output=True, check=True
    )
    return done.stdout.strip() + b"\n"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
