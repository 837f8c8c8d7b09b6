"""This machine's Python as layer entries: interpreter, standard library with bytecode, pip, shared libraries."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import marshal
import os
import re
import struct
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.utils import parse_wheel_filename

from kaapana_nb.errors import BuildError
from kaapana_nb.ship.layers import Entry, ZipMember
from kaapana_nb.ship.unpack import wheel_entries
from kaapana_nb.ship.wheels import Wheel, hash_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_LEFT_OUT = frozenset(
    {"__pycache__", "site-packages", "dist-packages", "test", "tests", "idlelib", "idle_test", "tkinter",
     "turtledemo", "turtle.py", "lib2to3", "ensurepip"}
)  # fmt: skip
_LEFT_OUT_MODULES = re.compile(r"(_tkinter|_test\w*|_ctypes_test|_xxtestfuzz|xxlimited\w*|ossaudiodev|nis)\.")
_WHEEL_LIBRARIES = (
    "libstdc++.so.6", "libgcc_s.so.1", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libutil.so.1",
    "libresolv.so.2", "libnss_files.so.2", "libnss_dns.so.2", "libz.so.1",
)  # fmt: skip
"""Libraries that manylinux wheels may expect from the system (PEP 600), beside what Python itself needs."""

_SHARED_PREFIXES = frozenset({"/usr", "/usr/local"})  # not of one machine or user: nothing to hide or to move
_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


def interpreter_entries(prefix: str) -> Iterator[Entry]:
    """The interpreter below `prefix`, its standard library, pip, and pip's list of public certificate authorities."""
    root = prefix.lstrip("/")
    executable = Path(sys.base_prefix) / "bin" / f"python{_VERSION}"
    if not executable.is_file():
        executable = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    yield Entry(path=f"{root}/bin/python{_VERSION}", mode=0o755, content=executable)
    for alias in ("python3", "python"):
        yield Entry(path=f"{root}/bin/{alias}", link=f"python{_VERSION}")
    library = Path(sysconfig.get_path("stdlib"))
    target = f"{root}/lib/python{_VERSION}"
    for path in _walk(library):
        place = f"{target}/{path.relative_to(library).as_posix()}"
        if path.suffix == ".py":
            yield from _module(_moved_text(path.read_bytes(), prefix), place)
        else:
            yield Entry(path=place, mode=0o755 if path.suffix == ".so" else 0o644, content=path)
    yield from _pip(f"{prefix}/lib/python{_VERSION}/site-packages")


def _walk(directory: Path) -> Iterator[Path]:
    for path in sorted(directory.iterdir()):
        if path.name in _LEFT_OUT or path.name.startswith("config-") or _LEFT_OUT_MODULES.match(path.name):
            continue
        if path.is_dir():
            yield from _walk(path)
        elif path.is_file() and path.suffix not in {".pyc", ".a", ".whl"}:
            yield path


def _module(source: bytes, path: str) -> Iterator[Entry]:
    """A module and its bytecode, which depends on the source alone and on no time stamp (PEP 552)."""
    yield Entry(path=path, content=source)
    try:
        code = compile(source, f"/{path}", "exec", dont_inherit=True)
    except (SyntaxError, ValueError):  # templates and samples that are no modules
        return
    folder, _, name = path.rpartition("/")
    header = importlib.util.MAGIC_NUMBER + struct.pack("<I", 1) + importlib.util.source_hash(source)
    # Version 2 of the format has no references: later versions' bytes depend on what else this process holds.
    data = header + marshal.dumps(code, 2)
    yield Entry(path=f"{folder}/__pycache__/{name[:-3]}.{sys.implementation.cache_tag}.pyc", content=data)


def _pip(target: str) -> Iterator[Entry]:
    bundled = sysconfig.get_config_var("WHEEL_PKG_DIR") or Path(sysconfig.get_path("stdlib")) / "ensurepip/_bundled"
    wheels = sorted(Path(bundled).glob("pip-*.whl"))
    if not wheels:
        yield from _installed_pip(target)
        return
    path = wheels[-1]
    wheel = Wheel(name="pip", version=parse_wheel_filename(path.name)[1], path=path, sha256=hash_file(path))
    with zipfile.ZipFile(path) as archive:
        for entry in wheel_entries(wheel, target):
            if entry.path.startswith(f"{target.strip('/')}/bin/"):
                continue
            if entry.path.endswith(".py") and isinstance(entry.content, ZipMember):
                yield from _module(archive.read(entry.content.name), entry.path)
            else:
                yield entry
        yield Entry(path="etc/ssl/certs/ca-certificates.crt", content=archive.read("pip/_vendor/certifi/cacert.pem"))


def _installed_pip(target: str) -> Iterator[Entry]:
    """The pip of this environment, where Python brings no wheel of it (Debian without python3-venv)."""
    try:
        found = importlib.metadata.distribution("pip")
    except importlib.metadata.PackageNotFoundError:
        raise BuildError(
            "This machine's Python brings no pip, and this environment has none.",
            "Run `make setup` again, or name a base image with --base.",
        ) from None
    prefix = target.strip("/")
    for file in sorted(found.files or (), key=str):
        if ".." in file.parts or file.suffix == ".pyc" or file.name in {"direct_url.json", "INSTALLER", "REQUESTED"}:
            continue
        data = Path(str(found.locate_file(file))).read_bytes()
        if file.suffix == ".py":
            yield from _module(data, f"{prefix}/{file}")
        else:
            yield Entry(path=f"{prefix}/{file}", content=data)
        if str(file) == "pip/_vendor/certifi/cacert.pem":
            yield Entry(path="etc/ssl/certs/ca-certificates.crt", content=data)


def library_entries(files: Iterable[Entry]) -> Iterator[Entry]:
    """The shared libraries that the programs and modules among `files` need, and those that wheels expect.

    They go where this machine's C library lies, which its loader searches without any configuration.
    """
    binaries = [entry.content for entry in files if isinstance(entry.content, Path) and _is_elf(entry.content)]
    needed = _ldd(binaries)
    libc = needed.get("libc.so.6")
    if libc is None:
        raise BuildError(
            "`ldd` names no libc.so.6 for this machine's Python; a dynamic Python on glibc was expected.",
            "Name a base image with --base.",
        )
    known = _ldconfig()
    extra = [known[name] for name in _WHEEL_LIBRARIES if name in known]
    needed = {**_ldd(extra), **{path.name: path for path in extra}, **needed}
    directory = _system_path(libc.parent)
    for name, path in sorted(needed.items()):
        place = f"{_system_path(path.parent)}/{name}" if name.startswith("ld-linux") else f"{directory}/{name}"
        yield Entry(path=place, mode=0o755, content=path.resolve())


def _system_path(directory: Path) -> str:
    text = str(directory).strip("/")
    return text if text.startswith("usr/") else f"usr/{text}"


def _is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _ldd(binaries: list[Path]) -> dict[str, Path]:
    """Name -> file of every library that `binaries` load, directly or not."""
    environ = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(
        ["ldd", *map(str, binaries)], capture_output=True, text=True, check=False, env=environ, timeout=60
    )
    found = re.findall(r"^\s+(?:(\S+) => )?(/\S+) \(0x", done.stdout, re.MULTILINE)
    return {name or Path(path).name: Path(path) for name, path in found}


def _ldconfig() -> dict[str, Path]:
    for program in ("/sbin/ldconfig", "/usr/sbin/ldconfig"):
        if Path(program).exists():
            done = subprocess.run([program, "-p"], capture_output=True, text=True, check=False, timeout=60)
            word = "x86-64" if os.uname().machine == "x86_64" else "AArch64"
            lines = re.findall(rf"^\s+(\S+) \(libc6,{word}[^)]*\) => (/\S+)$", done.stdout, re.MULTILINE)
            return {name: Path(path) for name, path in lines}
    return {}


def moved(entry: Entry, prefix: str) -> Entry:
    """Take this machine's prefix out of a file of the interpreter.

    Its parent directory is replaced by a path of the same length (``/opt/python////``). The last component
    stays, since compilers let other strings, such as the version, share the end of a string.
    """
    old, new = str(Path(sys.base_prefix).parent).encode() + b"/", prefix.encode()
    if not isinstance(entry.content, Path) or sys.base_prefix in _SHARED_PREFIXES or len(old) <= len(new):
        return entry
    last = Path(sys.base_prefix).name.encode()
    data = entry.content.read_bytes()
    if old + last not in data:
        return entry
    moved_data = data.replace(old + last, new + b"/" * (len(old) - len(new)) + last)
    return Entry(path=entry.path, mode=entry.mode, content=moved_data)


def _moved_text(source: bytes, prefix: str) -> bytes:
    if sys.base_prefix in _SHARED_PREFIXES:
        return source
    return source.replace(sys.base_prefix.encode(), prefix.encode())
