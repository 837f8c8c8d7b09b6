"""RUN lines where nothing else may run: the layers builder, with proot standing in for a container.

proot follows a process's system calls (ptrace) and moves its root, without any privilege. The image's
files are unpacked, the line is run on them, and what it changed becomes a layer. Owners cannot be kept
that way, so that lines which set them are refused, and every file that a line wrote belongs to root.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from kaapana_nb.clients.layout import OciLayout
from kaapana_nb.clients.supervise import supervise
from kaapana_nb.errors import BuildError
from kaapana_nb.ship.bases import complete_base
from kaapana_nb.ship.layers import Entry, Layer, LayerCache, layer_key
from kaapana_nb.ship.layers_builder import LayersBuilder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kaapana_nb.ship.builders import BuildRequest
    from kaapana_nb.ship.dockerfile import RunLine

_OWNERS = re.compile(r"\b(chown|chgrp|useradd|adduser|groupadd|addgroup|usermod|setcap|mknod|su|sudo)\b")
_NOT_OURS = frozenset({"proc", "dev", "sys", "etc/resolv.conf", "etc/hosts"})
_HOST_FILES = ("/proc", "/dev", "/etc/resolv.conf", "/etc/hosts")
_FILTER: dict[str, Any] = {"filter": "tar"} if hasattr(tarfile, "tar_filter") else {}
"""Python 3.11.4 and newer check members themselves as well; Debian 12 has 3.11.2."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What tells whether a file changed."""

    mode: int
    size: int
    mtime_ns: int
    inode: int
    link: str


class ProotBuilder(LayersBuilder):
    """See the module."""

    name = "proot"

    def unusable(self) -> str:
        """Why proot cannot be used here, found out by using it."""
        program = shutil.which("proot")
        if program is None:
            return "proot is not installed"
        done = subprocess.run([program, "-0", "true"], capture_output=True, check=False, timeout=20)
        return "" if done.returncode == 0 else "this machine does not allow ptrace"

    def __init__(self) -> None:
        self.run_line = run_under_proot


def run_under_proot(step: RunLine, request: BuildRequest, cache: LayerCache, layers: list[tuple[Layer, str]]) -> Layer:
    """Run one line on the files so far; give the layer of what it changed.

    Raises
    ------
    BuildError
        When the line sets owners or ends with another exit code than 0.
    """
    found = _OWNERS.search(" ".join(step.command))
    if found is not None or step.user not in ("", "root", "0", "0:0"):
        what = found[0] if found else f"USER {step.user}"
        raise BuildError(
            f"RUN {' '.join(step.command)[:120]!r} uses {what!r}: proot cannot keep owners.",
            "Build it with `--builder buildah` where that works, or leave the owner to root.",
        )
    base_path = complete_base(request.base, request.settings, request.client, request.log)
    base = OciLayout(base_path)
    blobs = [base.blob_path(item.digest) for item in request.base.image.manifest.layers]
    with tempfile.TemporaryDirectory(prefix=".proot-", dir=request.settings.images_dir) as name:
        root = Path(name) / "root"
        root.mkdir()
        for blob in [*blobs, *(layer.file for layer, _ in layers)]:
            unpack_tree(blob, root)
        before = _snapshot(root)
        _run(step, root, request)
        entries = list(_changes(root, before, _snapshot(root)))
        # What a line makes is not known before it ran: the layer's key is that of this one run.
        key = layer_key("run", step.command, name, [entry.path for entry in entries])
        layer, _ = cache.make(key, lambda: entries)
    return layer


def _run(step: RunLine, root: Path, request: BuildRequest) -> None:
    environ = {**request.base.image.config.environ, **dict(step.env)}
    environ.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    environ.setdefault("HOME", "/root")
    words = ["proot", "-0", "-r", str(root), "-w", step.working_dir]
    words += [word for path in _HOST_FILES if Path(path).exists() for word in ("-b", path)]
    settings = {"PATH": environ["PATH"] + ":" + os.environ.get("PATH", os.defpath)}
    assignments = [f"{key}={value}" for key, value in environ.items()]
    ended = supervise([*words, "/usr/bin/env", "-i", *assignments, *step.command], environ=settings, log=request.log)
    if ended.exit_code != 0:
        raise BuildError(
            f"RUN {' '.join(step.command)[:120]!r} ended with exit code {ended.exit_code} under proot: "
            f"{ended.tail[-300:]}.",
            "Correct the line; its output is above.",
        )


def _snapshot(root: Path) -> dict[str, _Seen]:
    seen: dict[str, _Seen] = {}
    for directory, names, files in os.walk(root):
        for name in (*names, *files):
            path = Path(directory) / name
            inside = path.relative_to(root).as_posix()
            if inside in _NOT_OURS or inside.partition("/")[0] in _NOT_OURS:
                continue
            status = path.lstat()
            link = str(path.readlink()) if stat.S_ISLNK(status.st_mode) else ""
            plain = stat.S_ISREG(status.st_mode)
            seen[inside] = _Seen(
                status.st_mode, status.st_size if plain else 0, status.st_mtime_ns if plain else 0,
                status.st_ino if plain else 0, link,
            )  # fmt: skip
    return seen


def _changes(root: Path, before: Mapping[str, _Seen], after: Mapping[str, _Seen]) -> Iterator[Entry]:
    """Entries for what is new or other, and whiteouts for what is gone (OCI image specification, "Whiteouts")."""
    for path, seen in after.items():
        if before.get(path) == seen:
            continue
        mode = stat.S_IMODE(seen.mode)
        if stat.S_ISLNK(seen.mode):
            yield Entry(path=path, link=seen.link)
        elif stat.S_ISDIR(seen.mode):
            yield Entry(path=path, mode=mode)
        elif stat.S_ISREG(seen.mode):
            yield Entry(path=path, mode=mode, content=root / path)
    for path in before.keys() - after.keys():
        parent = PurePosixPath(path).parent
        if str(parent) == "." or str(parent) in after:
            yield Entry(path=str(parent / f".wh.{PurePosixPath(path).name}"), content=b"")


def unpack_tree(blob: Path, root: Path) -> None:
    """Unpack a layer of any base below `root`; members that would leave it are refused, devices are left out.

    Raises
    ------
    BuildError
        When a member would be written, or linked from, outside of `root`.
    """
    limit = root.resolve()
    with tarfile.open(blob, mode="r:*") as archive:
        for member in archive:
            place = PurePosixPath(member.name.lstrip("/"))
            parent = (limit / place.parent).resolve()
            target = (limit / member.linkname.lstrip("/")).parent.resolve() if member.islnk() else parent
            if ".." in place.parts or not parent.is_relative_to(limit) or not target.is_relative_to(limit):
                raise BuildError(f"{blob} holds {member.name!r:.160}, which lies outside of the image.",
                                 "Choose another base image.")  # fmt: skip
            if place.name.startswith(".wh."):
                _hide(parent, place.name)
            elif not member.isdev():
                there = parent / place.name
                if there.is_symlink() or (there.is_file() and not member.isdir()):
                    there.unlink()
                member.name = str(place)
                member.mode &= 0o755  # as the filter does
                member.mode |= stat.S_IRUSR | stat.S_IWUSR | (stat.S_IXUSR if member.isdir() else 0)
                archive.extract(member, limit, **_FILTER)


def _hide(directory: Path, name: str) -> None:
    hidden = [*directory.iterdir()] if name == ".wh..wh..opq" else [directory / name.removeprefix(".wh.")]
    for path in hidden:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
