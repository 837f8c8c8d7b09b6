"""Running an image's command as a plain process of this machine: for places where no container can run.

There is no isolation: no file system of its own, no user, no memory limit. What it does keep is the
image's packages, files, command and environment, with the paths of the image replaced by real ones.
"""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
import tempfile
import time
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from kaapana_nb.clients.containers import DEFAULT_USER, ContainerResult, Log, Mount
from kaapana_nb.clients.layout import Image, OciLayout, verify_blob
from kaapana_nb.clients.supervise import supervise
from kaapana_nb.errors import BuildError, PlatformError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_BASE_LAYERS = "io.kaapana-nb.base-layers"
_MAX_MEMBERS = 1_000_000


class ProcessRunner:
    """Runs images with this machine's Python. Unpacked images are kept in `directory`."""

    name = "process"
    isolated = False

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def run(
        self,
        image_layout: Path,
        *,
        environ: Mapping[str, str],
        mounts: Sequence[Mount] = (),
        command: Sequence[str] | None = None,
        memory_mib: int | None = None,  # noqa: ARG002 - a promise of the runner that a process cannot keep
        user: str = DEFAULT_USER,  # noqa: ARG002
        read_only: bool = True,  # noqa: ARG002
        network: bool = False,  # noqa: ARG002
        timeout_s: float | None = None,
        log: Log = lambda _: None,
    ) -> ContainerResult:
        """See `kaapana_nb.clients.containers.ContainerRunner`. Memory limit, user and network are this process's."""
        started = time.perf_counter()
        layout = OciLayout(image_layout)
        image = layout.image()
        root = self._unpacked(layout, image)
        paths = _Paths(root, mounts)
        words = list(command or (*image.config.entrypoint, *image.config.cmd))
        if not words or PurePosixPath(words[0]).name not in {"python", "python3"}:
            raise PlatformError(
                f"The image's command is {words[:3]!r}; the process runner runs python3 only.",
                "Install podman, which runs any command.",
            )
        words = [getattr(sys, "_base_executable", None) or sys.executable, *(paths.real(word) for word in words[1:])]
        with tempfile.TemporaryDirectory(prefix="kaapana-nb-") as home:
            variables = {
                "PATH": os.environ.get("PATH", os.defpath),
                "LANG": "C.UTF-8",
                "PYTHONNOUSERSITE": "1",
                **{name: paths.real(value) for name, value in image.config.environ.items() if name not in _MACHINE},
                **{name: paths.variable(name, value) for name, value in environ.items()},
                "HOME": home,
                "TMPDIR": home,
            }
            work_dir = Path(paths.real(image.config.working_dir or "/"))
            ended = supervise(
                words, environ=variables, cwd=work_dir if work_dir.is_dir() else root, timeout_s=timeout_s, log=log
            )
        return ContainerResult(
            exit_code=ended.exit_code,
            timed_out=ended.timed_out,
            seconds=time.perf_counter() - started,
            output_tail=ended.tail,
        )

    def _unpacked(self, layout: OciLayout, image: Image) -> Path:
        """The image's own layers (those above the base) as a directory, made once per set of layers."""
        count = image.manifest.annotations.get(_BASE_LAYERS, "0")
        own = image.manifest.layers[int(count) if count.isascii() and count.isdigit() else 0 :]
        root = self._directory / image.manifest.config.digest.removeprefix("sha256:")[:24]
        if root.is_dir():
            return root
        self._directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".unpack-", dir=self._directory) as name:
            target = Path(name) / "root"
            target.mkdir()
            for layer in own:
                if not layout.has(layer):
                    raise BuildError(f"The image layout {layout.path} lacks layer {layer.digest}.", "Build again.")
                verify_blob(layout.blob_path(layer.digest), layer.digest)
                unpack_layer(layout.blob_path(layer.digest), target)
            try:
                target.rename(root)
            except OSError:
                if not root.is_dir():
                    raise
        return root


_MACHINE = frozenset({"PATH", "SSL_CERT_FILE", "LD_LIBRARY_PATH", "PYTHONHOME"})  # name files of the base image


_FILTER: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
"""Python 3.11.4 and newer check members themselves as well; Debian 12 has 3.11.2."""


def unpack_layer(blob: Path, target: Path) -> None:
    """Unpack a layer below `target`; members that would leave it, and special files, are refused.

    Raises
    ------
    BuildError
        When the blob is damaged or holds such a member.
    """
    try:
        with tarfile.open(blob, mode="r:*") as archive:
            for count, member in enumerate(archive):
                if count > _MAX_MEMBERS:
                    raise BuildError(f"{blob} holds more than {_MAX_MEMBERS} files.", "Build again.")
                name = PurePosixPath(member.name).name
                if name.startswith(".wh."):
                    _whiteout(target / PurePosixPath(member.name).parent, name, target)
                    continue
                _refuse_escape(member, target, blob)
                archive.extract(member, target, **_FILTER)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise BuildError(f"The layer {blob} cannot be unpacked: {error}.", "Build the image again.") from error


def _refuse_escape(member: tarfile.TarInfo, target: Path, blob: Path) -> None:
    """Refuse a member that would be written outside `target`, points there, or is no file, directory or link."""
    root = target.resolve()
    path = root / member.name
    inside = not PurePosixPath(member.name).is_absolute() and path.parent.resolve().is_relative_to(root)
    if member.issym() or member.islnk():
        start = path.parent if member.issym() else root
        inside = inside and (start / member.linkname).resolve().is_relative_to(root)
    if not inside or not (member.isfile() or member.isdir() or member.issym() or member.islnk()):
        raise BuildError(f"The layer {blob} holds {member.name!r}, which would leave the image.", "Build again.")


def _whiteout(directory: Path, name: str, target: Path) -> None:
    """Remove what a layer deletes (OCI image specification, "Whiteouts")."""
    hidden = directory / name.removeprefix(".wh.")
    if name == ".wh..wh..opq" or not hidden.resolve().is_relative_to(target.resolve()):
        return
    if hidden.is_dir() and not hidden.is_symlink():
        shutil.rmtree(hidden)
    else:
        hidden.unlink(missing_ok=True)


class _Paths:
    """Paths of the image and of its mounts -> paths of this machine."""

    def __init__(self, root: Path, mounts: Sequence[Mount]) -> None:
        self._root = root
        self._mounts = sorted(mounts, key=lambda mount: len(mount.target), reverse=True)

    def real(self, value: str) -> str:
        """A value with each path of the image replaced; values may be lists with colons (``PYTHONPATH``)."""
        return ":".join(self._one(part) for part in value.split(":"))

    def variable(self, name: str, value: str) -> str:
        """The same for a variable of the platform; ``WORKFLOW_DIR`` may lack its leading slash."""
        if name == "WORKFLOW_DIR" and not value.startswith("/"):
            return self.real("/" + value)
        return self.real(value)

    def _one(self, text: str) -> str:
        if not text.startswith("/"):
            return text
        for mount in self._mounts:
            target = mount.target.rstrip("/")
            if text == target or text.startswith(target + "/"):
                return str(mount.source.absolute()) + text[len(target) :]
        inside = self._root / text.lstrip("/")
        return str(inside) if text != "/" and ".." not in inside.parts and inside.exists() else text
