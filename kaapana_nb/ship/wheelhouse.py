"""The wheels of an export beside it, so that a hospital without internet can build the image."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable
from pathlib import Path

from kaapana_nb.errors import UsageError
from kaapana_nb.ship.context import context_wheels
from kaapana_nb.ship.dockerfile import read_dockerfile
from kaapana_nb.ship.wheels import TargetPython

DIRECTORY = "wheelhouse"
"""Below the export's directory: outside the build context, so that no wheel lands in the image twice."""

_PYTHON = re.compile(r"3\.([0-9]{1,2})\Z")


def wheelhouse_of(directory: Path) -> Path | None:
    """The wheelhouse of an export, or ``None`` when it was exported without one."""
    path = directory / DIRECTORY
    return path if path.is_dir() else None


def fill_wheelhouse(directory: Path, context: Path, *, python: str, log: Callable[[str], None]) -> tuple[Path, ...]:
    """Collect the wheels that the context's requirements name.

    Parameters
    ----------
    directory
        The export.
    context
        Its processing container.
    python
        Python of the base image that the container will stand on, ``"3.12"``.

    Raises
    ------
    UsageError
        When `python` is no version.
    BuildError
        When a distribution has no wheel for it, or the index cannot be reached.
    """
    match = _PYTHON.match(python)
    if match is None:
        raise UsageError(f"--python {python!r:.20} is no version such as 3.12.", "Write the base image's Python: 3.12.")
    target = TargetPython(version=(3, int(match[1])), machine=platform.machine())
    path = directory / DIRECTORY
    path.mkdir(parents=True, exist_ok=True)
    found = context_wheels(read_dockerfile(context), context, target, wheels_dir=path, wheelhouse=None, log=log)
    return tuple(sorted(wheel.path for wheels in found.values() for wheel in wheels if wheel.path.parent == path))
