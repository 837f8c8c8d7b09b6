"""The wheels of an image: pinned requirements read, wheels chosen for the base's Python, downloaded once.

Sources: PEP 440 and 508 (requirements), PEP 425 and 600 (compatibility tags), PEP 427 (wheels).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.markers import default_environment
from packaging.requirements import InvalidRequirement, Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from kaapana_nb.errors import BuildError
from kaapana_nb.files import write_atomic

if TYPE_CHECKING:
    from kaapana_nb.clients.oci import ImageConfig

Log = Callable[[str], None]

LABEL_PYTHON = "io.kaapana-nb.python"
LABEL_GLIBC = "io.kaapana-nb.glibc"
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
_OLDEST_GLIBC, _ASSUMED_GLIBC = 5, 28  # 2.5 is manylinux1; 2.28 is Debian 10's, and every platform base is newer
_MAX_REQUIREMENTS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetPython:
    """The Python of a base image: for which wheels are chosen."""

    version: tuple[int, int]
    micro: int = 0
    machine: str
    glibc: int = _ASSUMED_GLIBC

    @classmethod
    def of(cls, config: ImageConfig, name: str) -> TargetPython:
        """Read it from the labels of our own base, or from ``PYTHON_VERSION`` as official images set it.

        Raises
        ------
        BuildError
            When the image says neither, or is for a machine without wheels.
        """
        text = config.labels.get(LABEL_PYTHON) or config.environ.get("PYTHON_VERSION") or ""
        match = re.match(r"3\.([0-9]{1,2})(?:\.([0-9]{1,3}))?(?![0-9])", text)
        if match is None:
            raise BuildError(
                f"The base image {name} does not say which Python it has: label {LABEL_PYTHON} and variable "
                f"PYTHON_VERSION are missing or no version ({text!r:.40}).",
                "Choose another base with --base, or build with `--builder buildah`.",
            )
        machine = _MACHINES.get(config.architecture)
        if machine is None:
            raise BuildError(
                f"The base image {name} is for {config.architecture!r:.40}; {' or '.join(_MACHINES)} was expected.",
                "Choose a base image for this machine with --base.",
            )
        glibc = re.fullmatch(r"2\.([0-9]{1,3})", config.labels.get(LABEL_GLIBC, ""))
        return cls(
            version=(3, int(match[1])), micro=int(match[2] or 0), machine=machine,
            glibc=int(glibc[1]) if glibc else _ASSUMED_GLIBC,
        )  # fmt: skip

    def __str__(self) -> str:
        return f"{self.version[0]}.{self.version[1]}"

    @property
    def full(self) -> str:
        """The whole version, which ``Requires-Python`` of a package may ask for."""
        return f"{self}.{self.micro}"

    @property
    def platforms(self) -> list[str]:
        """Platform tags that run there, best first."""
        manylinux = [f"manylinux_2_{minor}_{self.machine}" for minor in range(self.glibc, _OLDEST_GLIBC - 1, -1)]
        legacy = [f"manylinux2014_{self.machine}", f"manylinux2010_{self.machine}", f"manylinux1_{self.machine}"]
        return [*manylinux, *legacy, f"linux_{self.machine}"]

    @property
    def tags(self) -> list[Tag]:
        """Compatibility tags, best first."""
        interpreter = f"cp{self.version[0]}{self.version[1]}"
        return [
            *cpython_tags(self.version, platforms=self.platforms),
            *compatible_tags(self.version, interpreter=interpreter, platforms=self.platforms),
        ]

    def environment(self) -> dict[str, str]:
        """Values of requirement markers there."""
        values = {str(key): str(value) for key, value in default_environment().items()}
        values.update(
            python_version=str(self), platform_machine=self.machine, sys_platform="linux", os_name="posix",
            platform_system="Linux", implementation_name="cpython", platform_python_implementation="CPython",
        )  # fmt: skip
        values["python_full_version"] = values["implementation_version"] = self.full
        return values


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """One line of a requirements file: a pinned version, or a wheel by its path in the image (`file`)."""

    name: str
    version: Version
    file: str = ""

    def __str__(self) -> str:
        return self.file or f"{self.name}=={self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A wheel file on this machine. `container_path` is set for a wheel that the context itself brings."""

    name: str
    version: Version
    path: Path
    sha256: str
    container_path: str = ""


def read_pins(text: str, target: TargetPython, where: str) -> tuple[Pin, ...]:
    """Read a requirements file: ``name==version`` lines, paths of wheels in the image, comments.

    Raises
    ------
    BuildError
        When a line is anything else (an option, an address, a range), or a package appears twice.
    """
    environment = target.environment()
    pins: dict[str, Pin] = {}
    for number, raw in enumerate(text.splitlines(), 1):
        line = re.sub(r"(^|\s)#.*$", "", raw).strip()
        if not line:
            continue
        pin = _read_pin(line, environment, f"{where} line {number}")
        if pin is None:
            continue
        if pin.name in pins:
            raise BuildError(f"{where} line {number} names {pin.name} a second time.", "Leave one of the lines out.")
        pins[pin.name] = pin
    if len(pins) > _MAX_REQUIREMENTS:
        raise BuildError(f"{where} names {len(pins)} packages; at most {_MAX_REQUIREMENTS} were expected.",
                         "Export only what the algorithm needs.")  # fmt: skip
    return tuple(pins.values())


def _read_pin(line: str, environment: dict[str, str], where: str) -> Pin | None:
    if line.startswith("/"):
        try:
            name, version, _, _ = parse_wheel_filename(line.rpartition("/")[2])
        except (InvalidWheelFilename, InvalidVersion):
            raise BuildError(f"{where} is {line!r:.160}; a wheel's file name was expected.",
                             "Export the notebook again.") from None  # fmt: skip
        return Pin(name=name, version=version, file=line)
    try:
        requirement = Requirement(line)
        specifiers = list(requirement.specifier)
        if requirement.url or len(specifiers) != 1 or specifiers[0].operator != "==":
            raise InvalidRequirement("not pinned")
        version = Version(specifiers[0].version)
    except (InvalidRequirement, InvalidVersion):
        raise BuildError(
            f"{where} is {line!r:.160}; `name==version` was expected.",
            "Pin the version, or build with `--builder buildah`.",
        ) from None
    if requirement.marker is not None and not requirement.marker.evaluate(environment):
        return None
    return Pin(name=canonicalize_name(requirement.name), version=version)


@cache
def _ranks(target: TargetPython) -> dict[Tag, int]:
    return {tag: position for position, tag in enumerate(target.tags)}


def find_wheel(pin: Pin, names: Iterable[str], target: TargetPython) -> str | None:
    """The file name among `names` that fits `pin` and the target best, or ``None``."""
    rank = _ranks(target)
    best: tuple[int, str] | None = None
    for file in names:
        try:
            name, version, _, tags = parse_wheel_filename(file)
        except (InvalidWheelFilename, InvalidVersion):
            continue
        if name == pin.name and version == pin.version:
            position = min((rank[tag] for tag in tags if tag in rank), default=None)
            if position is not None and (best is None or (position, file) < best):
                best = (position, file)
    return best[1] if best else None


def collect_wheels(
    pins: Iterable[Pin], target: TargetPython, *, wheels_dir: Path, wheelhouse: Path | None, log: Log
) -> dict[str, Wheel]:
    """The wheel of every pin that is not in the context itself, by package name.

    They come from `wheelhouse` alone when one is named, else from `wheels_dir`, into which pip downloads
    what is missing with the index settings of this machine.

    Raises
    ------
    BuildError
        When a package has no wheel for the base's Python, or pip cannot get it.
    """
    source = wheelhouse or wheels_dir
    if wheelhouse is not None and not (wheelhouse.is_dir() and os.access(wheelhouse, os.R_OK | os.X_OK)):
        raise BuildError(
            f"The wheelhouse {wheelhouse} is no directory that can be read.", "Fill one: pip wheel -r FILE -w DIR."
        )
    wanted = [pin for pin in pins if not pin.file]
    found = _find_all(wanted, source, target)
    missing = [pin for pin in wanted if pin.name not in found]
    if missing and wheelhouse is not None:
        raise BuildError(
            f"The wheelhouse {wheelhouse} has no wheel of {', '.join(map(str, missing[:8]))} for Python {target} on "
            f"{target.machine}.",
            f"Add them: pip download --only-binary :all: --python-version {target} -d {wheelhouse} {missing[0]}",
        )
    if missing:
        download_wheels(missing, target, wheels_dir, log)
        found = _find_all(wanted, source, target)
        if lost := [str(pin) for pin in wanted if pin.name not in found]:
            raise BuildError(f"pip brought no usable wheel of {', '.join(lost[:8])} for Python {target}.",
                             "Pin a version that has a wheel, or use --wheelhouse DIR.")  # fmt: skip
    hashes = _hashes([source / found[pin.name] for pin in wanted], wheels_dir / ".hashes.json")
    return {
        pin.name: Wheel(
            name=pin.name, version=pin.version, path=source / found[pin.name], sha256=hashes[source / found[pin.name]]
        )
        for pin in wanted
    }  # fmt: skip


def _hashes(paths: list[Path], memo: Path) -> dict[Path, str]:
    """sha256 of each file; those that did not change since the last build are not read again."""
    try:
        known = json.loads(memo.read_bytes())
    except (OSError, ValueError):
        known = {}
    hashes: dict[Path, str] = {}
    noted: dict[str, str] = {}
    for path in paths:
        status = path.stat()
        key = f"{path.absolute()} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
        value = known.get(key) if isinstance(known, dict) else None
        is_hash = isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None
        hashes[path] = noted[key] = str(value) if is_hash else hash_file(path)
    if noted != known:
        write_atomic(memo, json.dumps(noted).encode())
    return hashes


def _find_all(pins: list[Pin], directory: Path, target: TargetPython) -> dict[str, str]:
    by_name: dict[str, list[str]] = {}
    if directory.is_dir():
        for path in directory.iterdir():
            if path.suffix == ".whl":
                by_name.setdefault(canonicalize_name(path.name.partition("-")[0]), []).append(path.name)
    found = {pin.name: find_wheel(pin, by_name.get(pin.name, ()), target) for pin in pins}
    return {name: file for name, file in found.items() if file is not None}


def hash_file(path: Path) -> str:
    """sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download_wheels(pins: list[Pin], target: TargetPython, wheels_dir: Path, log: Log) -> None:
    """Have pip download wheels; each appears in `wheels_dir` only when it is whole.

    pip reads its own settings (``pip.conf``, ``PIP_INDEX_URL``, ``PIP_CERT``): a hospital's mirror is set there.
    """
    log(f"downloading {len(pins)} wheels for Python {target}: {', '.join(str(pin) for pin in pins[:6])}"
        f"{' …' if len(pins) > 6 else ''}")  # fmt: skip
    wheels_dir.mkdir(parents=True, exist_ok=True)
    digits = f"{target.version[0]}{target.version[1]}"
    with tempfile.TemporaryDirectory(prefix=".download-", dir=wheels_dir) as name:
        directory = Path(name)
        requirements = directory / "requirements.txt"
        requirements.write_text("".join(f"{pin}\n" for pin in pins))
        command = [
            sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet",
            "--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--python-version", target.full,
            "--implementation", "cp", "--abi", f"cp{digits}", "--abi", "abi3", "--abi", "none",
            *(word for platform in target.platforms for word in ("--platform", platform)),
            "--dest", name, "--requirement", str(requirements),
        ]  # fmt: skip
        environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
        if done.returncode != 0:
            raise _download_error(done.stderr, pins, target)
        for path in sorted(directory.glob("*.whl")):
            path.replace(wheels_dir / path.name)


def _download_error(stderr: str, pins: list[Pin], target: TargetPython) -> BuildError:
    for line in stderr.splitlines():
        match = re.search(r"No matching distribution found for ([^\s(]+)", line)
        if match:
            return BuildError(
                f"The package index has no wheel of {match[1]} for Python {target} on {target.machine}.",
                "Pin a version that has one, or make it (pip wheel) and name its directory with --wheelhouse.",
            )
    errors = [line.strip() for line in stderr.splitlines() if line.startswith("ERROR")] or stderr.splitlines()[-1:]
    detail = re.sub(r"https?://\S+", "<address>", " ".join(errors))[:300]
    return BuildError(
        f"pip could not download {len(pins)} wheels ({pins[0]}, …): {detail or 'no message'}.",
        "Check the index settings (`pip config list`) and the network, or use --wheelhouse DIR.",
    )
