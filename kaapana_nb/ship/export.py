"""Export: a notebook becomes the files of a processing container.

`render` is pure (values in, path -> bytes out) and deterministic to the byte; `export_notebook` gathers what it
needs from the live environment, `write_extension` puts the result on disk without losing what a user edited.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from kaapana_nb.contract.profiles import Profile
from kaapana_nb.errors import NotebookError, UsageError
from kaapana_nb.files import write_atomic
from kaapana_nb.ship.own_wheel import WHEEL_NAME, own_wheel
from kaapana_nb.ship.requirements import pins_for
from kaapana_nb.ship.requirements import render as render_requirements
from kaapana_nb.work.notebook import NotebookSpec

RECORD_FILE = "export.json"
"""What an export wrote, with hashes: a later export replaces only what nobody edited."""

APP_DIR = "/kaapana/app"
PACKAGES_DIR = "/kaapana/packages"
MAX_LOCAL_BYTES = 5 * 2**20
"""Largest module beside a notebook that is copied along; a bigger file is data, not code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtensionFiles:
    """The files of an extension: relative POSIX path -> content."""

    name: str
    version: str
    profile: str
    files: Mapping[str, bytes]

    def __post_init__(self) -> None:
        for path in self.files:
            parts = PurePosixPath(path).parts
            if path.startswith("/") or ".." in parts or not parts or "\\" in path or "\0" in path:
                raise UsageError(f"{path!r} would leave the export's directory.", "Give the notebook a plain name.")

    def record(self) -> bytes:
        """Content of ``export.json``."""
        hashes = {path: hashlib.sha256(data).hexdigest() for path, data in sorted(self.files.items())}
        data = {"name": self.name, "version": self.version, "platform": self.profile, "files": hashes}
        return (json.dumps(data, indent=1, sort_keys=True) + "\n").encode()


def export_notebook(path: Path, profile: Profile) -> ExtensionFiles:
    """Read a notebook and its environment, and render the extension.

    Raises
    ------
    NotebookError
        When it has no algorithm or no run cell, or imports what a container cannot install.
    """
    spec = NotebookSpec.read(path)
    spec.require_algorithm()
    modules = dict(local_modules(spec))
    names = {PurePosixPath(name).parts[0].removesuffix(".py") for name in modules}
    imports = set(spec.imports) | {name for data in modules.values() for name in _imported(data)}
    requirements = render_requirements(pins_for(imports, local=names), f"{APP_DIR}/wheels/{WHEEL_NAME}")
    return render(spec, profile, requirements=requirements, wheel=own_wheel(), modules=modules)


def render(
    spec: NotebookSpec, profile: Profile, *, requirements: str, wheel: bytes, modules: Mapping[str, bytes]
) -> ExtensionFiles:
    """The extension's files. Pure: the same values give the same bytes."""
    algorithm = spec.require_algorithm()
    notebook = notebook_name(spec)
    base = f"processing-containers/{algorithm.name}"
    files = {
        f"{base}/Dockerfile": dockerfile(spec, profile, modules).encode(),
        f"{base}/files/{notebook}": clean_notebook(spec),
        f"{base}/files/requirements.txt": requirements.encode(),
        f"{base}/files/wheels/{WHEEL_NAME}": wheel,
        **{f"{base}/files/{name}": data for name, data in modules.items()},
    }
    return ExtensionFiles(
        name=algorithm.name, version=algorithm.options.version, profile=profile.name, files=MappingProxyType(files)
    )


def notebook_name(spec: NotebookSpec) -> str:
    """Name of the notebook in the container: the operator's, whatever the file was called."""
    return spec.name.replace("-", "_") + ".ipynb"


def dockerfile(spec: NotebookSpec, profile: Profile, modules: Mapping[str, bytes]) -> str:
    """The processing container's Dockerfile; the only RUN line is the one the layers builder understands."""
    algorithm = spec.require_algorithm()
    notebook = notebook_name(spec)
    tops = sorted({PurePosixPath(name).parts[0] for name in modules})
    lines = [
        f"FROM {profile.base_image}",
        f'LABEL IMAGE="{algorithm.name}"',
        f'LABEL VERSION="{algorithm.options.version}"',
        f'LABEL {profile.ignore_label}="False"',
        f"ENV PYTHONPATH={PACKAGES_DIR} PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1",
        f"WORKDIR {APP_DIR}",
        f"COPY files/requirements.txt {APP_DIR}/requirements.txt",
        f"COPY files/wheels {APP_DIR}/wheels",
        f"RUN python3 -m pip install --no-cache-dir --no-compile --no-deps --target {PACKAGES_DIR} "
        f"-r {APP_DIR}/requirements.txt",
        *(f"COPY files/{top} {APP_DIR}/{top}" for top in tops),
        f"COPY files/{notebook} {APP_DIR}/{notebook}",
        f'CMD ["python3", "-m", "kaapana_nb", "execute", "{APP_DIR}/{notebook}"]',
    ]
    return "\n".join(lines) + "\n"


def clean_notebook(spec: NotebookSpec) -> bytes:
    """The notebook without explore cells, outputs, counts, attachments and metadata; ids are numbers of cells."""
    cells = []
    for number, cell in enumerate(spec.cells, start=1):
        entry: dict[str, object] = {
            "cell_type": cell.kind,
            "id": f"cell-{number:03d}",
            "metadata": {"tags": sorted(cell.tags)} if cell.tags else {},
            "source": cell.source.splitlines(keepends=True),
        }
        if cell.kind == "code":
            entry |= {"execution_count": None, "outputs": []}
        cells.append(entry)
    notebook = {
        "cells": cells,
        "metadata": {
            "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return (json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def local_modules(spec: NotebookSpec) -> Iterator[tuple[str, bytes]]:
    """Modules and packages beside the notebook that it imports, and what they import there: name -> source."""
    directory = spec.path.absolute().parent
    waiting, seen = sorted(spec.imports), set[str]()
    while waiting:
        module = waiting.pop()
        if module in seen or not module.isidentifier():
            continue
        seen.add(module)
        single, package = directory / f"{module}.py", directory / module
        if single.is_file():
            paths = [single]
        elif (package / "__init__.py").is_file():
            paths = sorted(path for path in package.rglob("*.py") if path.is_file())
        else:
            continue
        for path in paths:
            if path.stat().st_size > MAX_LOCAL_BYTES or not path.resolve().is_relative_to(directory.resolve()):
                raise NotebookError(
                    f"The module {path.relative_to(directory)} is larger than {MAX_LOCAL_BYTES // 2**20} MiB "
                    "or a link to somewhere else; code was expected.",
                    "Put the code itself beside the notebook.",
                )
            data = path.read_bytes()
            yield path.relative_to(directory).as_posix(), data
            waiting.extend(_imported(data))


def _imported(source: bytes) -> Iterator[str]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise NotebookError(
            f"A module beside the notebook has a syntax error in line {getattr(error, 'lineno', 1)}.",
            "Correct the module.",
        ) from error
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]


def write_extension(extension: ExtensionFiles, directory: Path, *, force: bool = False) -> tuple[Path, ...]:
    """Write the files below `directory`, each atomically, and remove what an earlier export left over.

    Raises
    ------
    UsageError
        When a file there was edited since it was exported, or was never exported, and `force` is not set.
    """
    record_path = directory / RECORD_FILE
    before = _recorded(record_path)
    base = f"processing-containers/{extension.name}"
    edited = []
    for name, data in extension.files.items():
        path = directory / name
        if path.is_symlink() or any(parent.is_symlink() for parent in _parents(directory, path)):
            raise UsageError(f"{name} is a link in {directory}; files were expected.", "Choose an empty directory.")
        if path.is_file():
            seen = hashlib.sha256(path.read_bytes()).hexdigest()
            if seen not in {before.get(name), hashlib.sha256(data).hexdigest()}:
                edited.append(name)
    if edited and not force:
        raise UsageError(
            f"{edited[0]} in {directory} was edited since it was exported"
            + (f" (and {len(edited) - 1} more)." if len(edited) > 1 else "."),
            "Choose another directory with -o, or overwrite it with --force.",
        )
    for name in sorted(set(before) - set(extension.files)):
        path = directory / name
        if name.startswith(f"{base}/") and path.is_file() and _sha256(path) == before[name]:
            path.unlink()
    written = []
    for name, data in sorted(extension.files.items()):
        path = directory / name
        if not path.is_file() or path.read_bytes() != data:
            write_atomic(path, data)
        written.append(path)
    write_atomic(record_path, extension.record())
    return (*written, record_path)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _parents(root: Path, path: Path) -> Iterator[Path]:
    while path.parent != root and path.parent != path:
        path = path.parent
        yield path


def _recorded(path: Path) -> dict[str, str]:
    try:
        files = json.loads(path.read_bytes())["files"]
        return {
            str(name): str(value)
            for name, value in files.items()
            if not str(name).startswith("/") and ".." not in PurePosixPath(str(name)).parts
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
