"""``kaapana-nb doctor``: what is on this machine, what is missing, and the remedy."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Any

from kaapana_nb.cli import bootstrap
from kaapana_nb.contract.exitcodes import FAILED, OK
from kaapana_nb.errors import KaapanaNbError
from kaapana_nb.settings import Settings

_EPILOG = """\
example:
  kaapana-nb doctor            a line per finding
  kaapana-nb doctor --json     {"ok": true, "findings": [{"name", "severity", "message", "remedy"}]}

Severities: ok; note (something optional is not there); warning (the main job goes on, embedded); error.
Exit codes: 0 the main job can run, 1 it cannot.
"""

MIN_FREE_GIB = 2.0
"""An image, its layers and a sample batch take about half of this."""
MIN_OPEN_FILES = 1024
MIN_INOTIFY_INSTANCES = 128
_ASK_TIMEOUT_S = 30


class Severity(StrEnum):
    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at. `remedy` is empty where there is nothing to do."""

    name: str
    severity: Severity
    message: str
    remedy: str = ""


def register(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "doctor",
        help="what is missing on this machine, and the remedy",
        description="Look at this machine and say what is there, what is missing and what to do about it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print one object")
    parser.set_defaults(handler=handle)


def handle(args: argparse.Namespace) -> int:
    findings = list(examine(Settings.from_environ()))
    healthy = not any(finding.severity is Severity.ERROR for finding in findings)
    if args.json:
        print(json.dumps({"ok": healthy, "findings": [asdict(finding) for finding in findings]}, indent=1))
    else:
        for finding in findings:
            print(f"{finding.severity:8} {finding.name:15} {finding.message}")
            if finding.remedy:
                print(f"{'':24} remedy: {finding.remedy}")
    return OK if healthy else FAILED


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at everything; no check changes anything but a file that it removes again."""
    yield check_python(sys.version_info[:2])
    yield check_lock(bootstrap.ROOT / "requirements.lock")
    for package, (program, without) in {**bootstrap.SYSTEM, **bootstrap.TEST_SYSTEM}.items():
        yield check_program(package, program, without)
    yield check_containers(settings)
    for name in bootstrap.HELM:
        yield check_helm(settings.bin_dir / name)
    yield check_sample(settings)
    yield check_base_image(settings)
    yield check_writable("home", settings.home, "KAAPANA_NB_HOME")
    yield check_writable("workspace", settings.workspace, "KAAPANA_NB_WORKSPACE")
    yield check_disk(settings.home)
    yield check_open_files()
    yield check_inotify()


def check_python(version: tuple[int, int]) -> Finding:
    text = f"Python {platform.python_version()}"
    if version in bootstrap.SUPPORTED:
        return Finding(name="python", severity=Severity.OK, message=text)
    return Finding(
        name="python",
        severity=Severity.ERROR,
        message=f"{text}; 3.11 or 3.12 is needed",
        remedy="make setup PYTHON=/path/to/python3.12",
    )


def check_lock(lock: Path) -> Finding:
    """Compare the installed versions with the lock's."""
    if not lock.exists():
        message = "installed as a package, so there is no lock to compare with"
        return Finding(name="environment", severity=Severity.NOTE, message=message)
    wrong = [
        f"{name} {installed or 'missing'} (locked: {version})"
        for name, version in locked_versions(lock.read_text()).items()
        if (installed := _installed(name)) != version
    ]
    if not wrong:
        return Finding(name="environment", severity=Severity.OK, message="as locked")
    shown = ", ".join(wrong[:3]) + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")
    return Finding(
        name="environment", severity=Severity.WARNING, message=f"not as locked: {shown}", remedy="make setup"
    )


def locked_versions(text: str) -> dict[str, str]:
    """Name -> version of the lock's lines that apply to this Python and machine."""
    from packaging.requirements import Requirement

    versions = {}
    for line in re.findall(r"^[A-Za-z0-9][^\\\n]*", text, flags=re.MULTILINE):
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate():
            versions[requirement.name] = str(requirement.specifier).removeprefix("==")
    return versions


def check_program(package: str, program: str, without: str) -> Finding:
    if not bootstrap.missing_packages({package: (program, without)}):
        return Finding(name=package, severity=Severity.OK, message="there")
    severity = Severity.NOTE if package in bootstrap.TEST_SYSTEM else Severity.WARNING
    remedy = (
        "make test (as root) installs it" if package in bootstrap.TEST_SYSTEM else "make setup (as root) installs it"
    )
    return Finding(name=package, severity=severity, message=f"missing: {without}", remedy=remedy)


def check_containers(settings: Settings) -> Finding:
    """Whether podman can really run a container here, found out by running one."""
    from kaapana_nb.clients.podman import PodmanRunner

    reason = PodmanRunner(settings.containers_dir).unusable()
    if not reason:
        return Finding(name="containers", severity=Severity.OK, message="podman runs them")
    return Finding(
        name="containers",
        severity=Severity.WARNING,
        message=f"run by the process runner, without isolation: {reason}",
        remedy="make setup (as root); in a pod without rights there is none",
    )


def check_helm(program: Path) -> Finding:
    version = _said([str(program), "version", "--short"]) if _is_there(program) else None
    if version:
        return Finding(name=program.name, severity=Severity.OK, message=version)
    message = "missing or broken: charts are not checked"
    return Finding(name=program.name, severity=Severity.NOTE, message=message, remedy="make setup")


def check_sample(settings: Settings) -> Finding:
    from kaapana_nb.data.batch import Batch

    if not _is_there(settings.sample_run):
        message = "not made yet; `kaapana-nb lab` and `kaapana-nb tour` make it"
        return Finding(name="sample batch", severity=Severity.NOTE, message=message, remedy="make setup")
    return _from_call("sample batch", lambda: f"{len(Batch.open(settings.sample_run))} series")


def check_base_image(settings: Settings) -> Finding:
    from kaapana_nb.clients.layout import OciLayout
    from kaapana_nb.ship.base_image import base_layout_path

    path = base_layout_path(settings)
    if not (_is_there(path) and OciLayout.is_layout(path)):
        message = "not made yet; `kaapana-nb build` makes it"
        return Finding(name="base image", severity=Severity.NOTE, message=message, remedy="make setup")
    return _from_call("base image", lambda: OciLayout(path).image().digest)


def check_writable(name: str, directory: Path, variable: str) -> Finding:
    """Whether a file can be made in `directory`, or in the nearest directory above it that exists."""
    nearest = next(parent for parent in (directory, *directory.parents) if _is_there(parent))
    try:
        with tempfile.NamedTemporaryFile(dir=nearest, prefix=".kaapana-nb-"):
            pass
    except OSError as error:
        return Finding(
            name=name,
            severity=Severity.ERROR,
            message=f"{directory} cannot be written: {error.strerror}",
            remedy=f"Set {variable} to a directory that you may write to.",
        )
    return Finding(name=name, severity=Severity.OK, message=str(directory))


def check_disk(directory: Path, minimum_gib: float = MIN_FREE_GIB) -> Finding:
    nearest = next(parent for parent in (directory, *directory.parents) if _is_there(parent))
    free_gib = shutil.disk_usage(nearest).free / 2**30
    message = f"{free_gib:.1f} GiB free at {nearest}"
    if free_gib >= minimum_gib:
        return Finding(name="disk", severity=Severity.OK, message=message)
    remedy = "Make room, or set KAAPANA_NB_HOME to another disk."
    return Finding(name="disk", severity=Severity.WARNING, message=message, remedy=remedy)


def check_open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    message = f"{soft} open files allowed"
    if soft == resource.RLIM_INFINITY or soft >= MIN_OPEN_FILES:
        return Finding(name="open files", severity=Severity.OK, message=message)
    remedy = f"ulimit -n {hard if 0 < hard < MIN_OPEN_FILES else MIN_OPEN_FILES}"
    return Finding(name="open files", severity=Severity.WARNING, message=message, remedy=remedy)


def check_inotify(limit: Path = Path("/proc/sys/fs/inotify/max_user_instances")) -> Finding:
    try:
        instances = int(limit.read_text())
    except (OSError, ValueError):
        return Finding(name="inotify", severity=Severity.NOTE, message="unknown on this machine")
    message = f"{instances} instances allowed"
    if instances >= MIN_INOTIFY_INSTANCES:
        return Finding(name="inotify", severity=Severity.OK, message=message)
    remedy = f"sysctl fs.inotify.max_user_instances={MIN_INOTIFY_INSTANCES} (as root)"
    return Finding(name="inotify", severity=Severity.WARNING, message=message, remedy=remedy)


def _is_there(path: Path) -> bool:
    """Like `Path.exists`, which raises below a directory that this user may not enter."""
    return os.access(path, os.F_OK)


def _from_call(name: str, call: Callable[[], str]) -> Finding:
    try:
        return Finding(name=name, severity=Severity.OK, message=call())
    except KaapanaNbError as error:
        return Finding(name=name, severity=Severity.WARNING, message=error.problem, remedy=error.remedy)


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _said(command: list[str]) -> str | None:
    """First line of a program's output, or ``None`` when it fails."""
    try:
        result = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=_ASK_TIMEOUT_S, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = result.stdout.strip().splitlines()
    return lines[0] if result.returncode == 0 and lines else None
