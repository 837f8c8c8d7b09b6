"""Containers with podman: rootful or rootless, with storage and settings of our own.

The user's own podman is neither read nor changed: everything lies below one directory.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import resource
import secrets
import shutil
import signal
import stat
import struct
import subprocess
import tarfile
import time
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from kaapana_nb.clients.containers import DEFAULT_USER, ContainerResult, Log, Mount
from kaapana_nb.clients.layout import OciLayout
from kaapana_nb.clients.oci import CONFIG, LAYER_TAR, ImageConfig, Manifest, sha256
from kaapana_nb.clients.supervise import Ended, supervise
from kaapana_nb.errors import PlatformError
from kaapana_nb.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_OWN_ERRORS = frozenset({125, 127})  # podman-run(1): 125 podman itself failed, 127 the command was not found
_KEPT_VARIABLES = ("PATH", "HOME", "XDG_RUNTIME_DIR", "TMPDIR", "LANG")
_PODMANS = ("LD_", "CONTAINER", "PODMAN_", "BUILDAH_", "XDG_", "GO")
"""Beginnings of variables that podman or its loader read themselves; no secret has such a name."""

_MAX_PROCESSES = 4096


class PodmanRunner:
    """Runs images with podman. `directory` holds storage and settings."""

    name = "podman"
    isolated = True

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._program = shutil.which("podman")

    def unusable(self) -> str:
        """Why podman cannot run containers here, found out by running one; empty when it can."""
        if self._program is None:
            return "podman is not installed"
        if shutil.which("runc") is None and shutil.which("crun") is None:
            return "neither runc nor crun is installed"
        program = _smallest_program()
        if program is None:
            return f"no probe for {platform.machine()}"
        try:
            layout = _probe_layout(self._directory / "probe", program)
            result = self.run(layout, environ={}, timeout_s=30)
            reason = "" if result.exit_code == 0 else f"a container that does nothing ended with {result.exit_code}"
        except PlatformError as error:
            reason = error.problem.rstrip(".")
        except OSError as error:
            return f"{self._directory} cannot be written: {error.strerror}"
        if reason:
            self._end_pause_process()
        return reason

    def run(
        self,
        image_layout: Path,
        *,
        environ: Mapping[str, str],
        mounts: Sequence[Mount] = (),
        command: Sequence[str] | None = None,
        memory_mib: int | None = None,
        user: str = DEFAULT_USER,
        read_only: bool = True,
        network: bool = False,
        timeout_s: float | None = None,
        log: Log = lambda _: None,
    ) -> ContainerResult:
        """See `kaapana_nb.clients.containers.ContainerRunner`."""
        started = time.perf_counter()
        image = self._load(image_layout)
        name = f"kaapana-nb-{secrets.token_hex(6)}"
        words = [
            "run", "--name", name, "--pull", "never", "--network", "host" if network else "none", "--user", user,
            "--cap-drop", "all", "--security-opt", "no-new-privileges", "--tmpfs", "/tmp:rw,mode=1777",  # noqa: S108
            "--log-driver", "none", "--pids-limit", str(_MAX_PROCESSES),
        ]  # fmt: skip
        if shutil.which("catatonit"):
            words.append("--init")
        if read_only:
            words += ["--read-only", "--read-only-tmpfs=false"]
        if memory_mib is not None:
            words += ["--memory", f"{memory_mib}m", "--memory-swap", f"{memory_mib}m"]
        for mount in mounts:
            mode = ",ro" if mount.read_only else ""
            words += ["--mount", f"type=bind,src={mount.source.absolute()},dst={mount.target}{mode}"]
        own = self._environ()
        for key, value in environ.items():
            # Values reach podman in its environment and not on its command line, which every user may read.
            words += ["--env", f"{key}={value}" if key in own or key.startswith(_PODMANS) else key]
        words += [image, *(command or ())]
        passed = {key: value for key, value in environ.items() if not key.startswith(_PODMANS)}
        try:
            ended = supervise(
                [str(self._program), *words], environ={**passed, **own}, cwd=self._directory, timeout_s=timeout_s,
                log=log, stop=lambda: self._quietly("kill", name),
            )  # fmt: skip
            state = self._state(name)
        finally:
            self._quietly("rm", "--force", "--time", "0", name)
        if ended.exit_code in _OWN_ERRORS and not state.get("Pid") and state.get("Status") != "exited":
            raise PlatformError(
                f"podman could not start the container: {ended.tail[-400:] or 'no message'}.",
                "Run `kaapana-nb doctor`; the process runner works without podman.",
            )
        return ContainerResult(
            exit_code=ended.exit_code,
            oom_killed=bool(state.get("OOMKilled")) or _killed_by_limit(ended, memory_mib),
            timed_out=ended.timed_out,
            seconds=time.perf_counter() - started,
            output_tail=ended.tail,
        )

    def remove_storage(self) -> None:
        """Remove all images and containers of this storage."""
        self._podman("system", "reset", "--force")

    def _load(self, layout: Path) -> str:
        """Bring an image into podman's storage unless it is there; its id is the configuration's digest."""
        image = OciLayout(layout).image()
        identity = image.manifest.config.digest.removeprefix("sha256:")
        if self._podman("image", "exists", identity).returncode == 0:
            return identity
        # podman 4 names an image after its path and refuses components such as ".local": give it a plain name
        link = self._directory / f"image-{identity[:16]}-{secrets.token_hex(4)}"
        link.symlink_to(layout.absolute())
        try:
            done = self._podman("pull", "--quiet", f"oci:{link.name}")
        finally:
            link.unlink(missing_ok=True)
        if done.returncode != 0 or identity not in done.stdout:
            raise PlatformError(
                f"podman could not load the image in {layout}: {done.stderr.strip()[-300:] or done.stdout[-100:]}.",
                f"If layers are missing, build on a base that is here (--base DIR); else remove {self._directory}.",
            )
        self._forget_older(layout, identity)
        return identity

    def _forget_older(self, layout: Path, identity: str) -> None:
        """Remove the image that the same layout held before: a notebook is built many times a day."""
        note = self._directory / "loaded" / sha256(str(layout.absolute()).encode())[7:39]
        with contextlib.suppress(OSError):
            older = note.read_text()
            if older != identity:
                self._quietly("rmi", older)  # refused while a container runs it
        write_atomic(note, identity.encode())

    def _state(self, name: str) -> dict[str, object]:
        done = self._podman("inspect", "--type", "container", "--format", "{{json .State}}", name)
        with contextlib.suppress(ValueError):
            value = json.loads(done.stdout)
            return value if isinstance(value, dict) else {}
        return {}

    def _end_pause_process(self) -> None:
        """End the process that keeps a rootless podman's namespaces: of no use where no container runs."""
        with contextlib.suppress(PlatformError):
            if not (_runroot(self._directory) / "libpod" / "pause.pid").is_file():
                return  # there is none, or a newer podman shares the one of the user's own
            if not self._podman("ps", "--quiet").stdout.strip():  # `migrate` would stop what runs
                self._podman("system", "migrate")

    def _quietly(self, *words: str) -> None:
        self._podman(*words)

    def _podman(self, *words: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                [str(self._program), *words], env=self._environ(), cwd=self._directory, capture_output=True, text=True,
                check=False, timeout=300,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise PlatformError(f"podman {words[0]} did not work: {error}.", "Run `kaapana-nb doctor`.") from error

    def _environ(self) -> dict[str, str]:
        return engine_environ(self._directory)


def engine_environ(directory: Path) -> dict[str, str]:
    """The environment of podman and buildah: storage and settings below `directory`, nothing to inherit."""
    storage, containers = directory / "storage.conf", directory / "containers.conf"
    directory.mkdir(parents=True, exist_ok=True)
    _write_if_other(storage, _storage_conf(directory))
    _write_if_other(containers, _containers_conf(directory))
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **kept,
        "CONTAINERS_STORAGE_CONF": str(storage), "CONTAINERS_CONF": str(containers),
    }  # fmt: skip


def _storage_conf(directory: Path) -> str:
    return (
        '[storage]\ndriver = "overlay"\n'
        f"graphroot = {json.dumps(str(directory / 'graph'))}\n"
        f"runroot = {json.dumps(str(_runroot(directory)))}\n"
    )


def _runroot(directory: Path) -> Path:
    """Where podman keeps sockets: short, or a container's end is only noticed after 20 s (conmon's socket path is cut).

    A directory of this user alone, the same for the same storage, since podman remembers it there.
    """
    name = hashlib.sha256(str(directory.absolute()).encode()).hexdigest()[:10]
    path = Path("/tmp") / f"knb-{os.getuid()}-{name}"  # noqa: S108 - checked below: ours, and nobody else's
    path.mkdir(mode=0o700, exist_ok=True)
    state = path.lstat()
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid() or state.st_mode & 0o077:
        raise PlatformError(
            f"{path} exists and is not a private directory of this user.", "Remove it, or ask who made it."
        )
    return path


def _killed_by_limit(ended: Ended, memory_mib: int | None) -> bool:
    """Whether SIGKILL came from the memory limit: podman misses that on hybrid cgroups, and nobody else sends it."""
    return memory_mib is not None and ended.exit_code == 128 + signal.SIGKILL and not ended.timed_out


def _containers_conf(directory: Path) -> str:
    """Settings that work in virtual machines and pods: no systemd, no journal, limits that this process may set."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limit = files if 0 < files < 1 << 30 else 1 << 20
    runtime = "runc" if shutil.which("runc", path="/usr/sbin:/usr/bin:" + os.environ.get("PATH", "")) else "crun"
    return (
        f'[containers]\ndefault_ulimits = ["nofile={limit}:{limit}", "nproc={_MAX_PROCESSES}:{_MAX_PROCESSES}"]\n'
        'netns = "host"\n'
        f'[engine]\nruntime = "{runtime}"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
        # Not the /run/libpod that all podmans share: a `system reset` of one would take it from the others.
        f"tmp_dir = {json.dumps(str(_runroot(directory) / 'libpod'))}\n"
    )


def _write_if_other(path: Path, text: str) -> None:
    with contextlib.suppress(OSError):
        if path.read_text() == text:
            return
    write_atomic(path, text.encode())


def _smallest_program() -> bytes | None:
    """A static ELF program that exits with 0, so that the probe needs no image from anywhere.

    Source: System V ABI, chapters 4 and 5 (ELF header, program header), and the kernel's exit system call.
    """
    codes = {
        "x86_64": (62, bytes.fromhex("b83c00000031ff0f05")),  # mov eax,60; xor edi,edi; syscall
        "aarch64": (183, bytes.fromhex("a80b8052000080d2010000d4")),  # mov w8,93; mov x0,0; svc 0
    }
    if platform.machine() not in codes:
        return None
    machine, code = codes[platform.machine()]
    start = 0x400000
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, machine, 1, start + 120, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    size = 120 + len(code)
    return header + struct.pack("<IIQQQQQQ", 1, 5, 0, start, start, size, size, 0x1000) + code


def _probe_layout(path: Path, program: bytes) -> Path:
    if OciLayout.is_layout(path):
        return path
    blob = BytesIO()
    with tarfile.open(fileobj=blob, mode="w") as archive:
        for name, data in (("true", program), ("tmp", None)):
            info = tarfile.TarInfo(name)
            info.mode, info.size = 0o755, len(data or b"")
            info.type = tarfile.REGTYPE if data else tarfile.DIRTYPE
            archive.addfile(info, BytesIO(data) if data else None)
    layout = OciLayout.create(path)
    layer = layout.add(blob.getvalue(), LAYER_TAR)
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    config = ImageConfig(
        architecture=architecture, cmd=("/true",), env=("PATH=/",), diff_ids=(sha256(blob.getvalue()),)
    )
    stored = layout.add(config.to_bytes(), CONFIG)
    layout.set_image(Manifest(config=stored, layers=(layer,)), "probe")
    return path
