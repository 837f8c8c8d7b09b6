"""The project's own images below ``docker/``: their build contexts, with pinned packages and our own wheel.

A directory there holds what a person wrote (Dockerfile, settings). What follows from this installation,
the requirements file and kaapana-nb's wheel, is added to a copy of it, never to the directory itself.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from kaapana_nb.errors import UsageError
from kaapana_nb.files import write_atomic
from kaapana_nb.ship.own_wheel import WHEEL_NAME, own_wheel
from kaapana_nb.ship.requirements import pins_for, render


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnImage:
    """An image of ours: the modules that it is for, and its greatest size.

    Attributes
    ----------
    modules
        Top-level modules whose packages, with all that they need, go in; empty for an image without packages.
    max_size_mb
        Largest sum of its uncompressed layers, in megabytes.
    """

    modules: tuple[str, ...]
    max_size_mb: int


OWN_IMAGES: Mapping[str, OwnImage] = MappingProxyType(
    {
        "jupyterlab": OwnImage(modules=("jupyterlab", "ipywidgets", "matplotlib", "pandas"), max_size_mb=1200),
        "notebook-operator": OwnImage(modules=("papermill", "nbconvert"), max_size_mb=700),
        "dag-installer": OwnImage(modules=(), max_size_mb=200),
    }
)


def make_own_context(name: str, source: Path, target: Path) -> Path:
    """Copy ``<source>/<name>`` to ``<target>/<name>`` and add the generated files; give that directory.

    Raises
    ------
    UsageError
        When there is no image of that name.
    NotebookError
        When one of its packages is not installed here.
    """
    if name not in OWN_IMAGES or not (source / name / "Dockerfile").is_file():
        raise UsageError(f"There is no image {name!r:.60} in {source}.", f"Choose one of {', '.join(OWN_IMAGES)}.")
    context = target / name
    shutil.copytree(source / name, context, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    modules = OWN_IMAGES[name].modules
    if modules:
        wheel = f"/kaapana/app/wheels/{WHEEL_NAME}"
        write_atomic(context / "files/wheels" / WHEEL_NAME, own_wheel())
        write_atomic(context / "files/requirements.txt", render(pins_for(modules), wheel).encode())
    return context
