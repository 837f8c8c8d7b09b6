"""Export: a notebook becomes the files of an extension.

`render` is pure (values in, path -> bytes out) and deterministic to the byte; `export_notebook` gathers what it
needs from the live environment, `write_extension` puts the result on disk without losing what a user edited.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from kaapana_nb.contract.profiles import Profile
from kaapana_nb.errors import NotebookError, UsageError
from kaapana_nb.files import write_atomic
from kaapana_nb.ship.chart_files import chart_files
from kaapana_nb.ship.dag_files import dag_files, module_name, version_of
from kaapana_nb.ship.lint import lint, require_no_errors
from kaapana_nb.ship.own_wheel import WHEEL_NAME, own_wheel
from kaapana_nb.ship.provenance import provenance
from kaapana_nb.ship.record import RECORD_FILE, read_record, recorded_hashes
from kaapana_nb.ship.requirements import pins_for
from kaapana_nb.ship.requirements import render as render_requirements
from kaapana_nb.ship.task_api import FILE as TASK_API_FILE
from kaapana_nb.ship.task_api import processing_container
from kaapana_nb.work.notebook import NotebookSpec

APP_DIR = "/kaapana/app"
PACKAGES_DIR = "/kaapana/packages"
MAX_LOCAL_BYTES = 5 * 2**20
"""Largest module beside a notebook that is copied along; a bigger file is data, not code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtensionFiles:
    """The files of an extension.

    Attributes
    ----------
    program, runner
        What the container runs, and what of kaapana-nb it needs for that; see `Program`.
    files
        Relative POSIX path -> content.
    warnings
        The platform's traps that do not stop the export, for the user to read.
    allowed
        Fingerprints of findings of the privacy guard that the user took.
    """

    name: str
    version: str
    profile: str
    program: str
    runner: str
    files: Mapping[str, bytes]
    warnings: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for path in self.files:
            parts = PurePosixPath(path).parts
            if path.startswith("/") or ".." in parts or not parts or "\\" in path or "\0" in path:
                raise UsageError(f"{path!r} would leave the export's directory.", "Give the notebook a plain name.")

    def record(self) -> bytes:
        """Content of ``export.json``."""
        hashes = {path: hashlib.sha256(data).hexdigest() for path, data in sorted(self.files.items())}
        data = {
            "name": self.name,
            "version": self.version,
            "platform": self.profile,
            "program": self.program,
            "runner": self.runner,
            "allowed": list(self.allowed),
            "files": hashes,
        }
        return (json.dumps(data, indent=1, sort_keys=True) + "\n").encode()


def export_notebook(path: Path, profile: Profile, *, script: bool = False) -> ExtensionFiles:
    """Read a notebook (or a script) and its environment, and render the extension.

    Parameters
    ----------
    script
        Write the notebook as a plain Python file: the container then needs neither papermill nor a kernel.

    Raises
    ------
    NotebookError
        When it has an algorithm but no run cell, imports what a container cannot install, or would fall into one of
        the platform's traps.
    """
    spec = NotebookSpec.read(path)
    spec.require_run_cell()
    warnings = require_no_errors(lint(spec, profile))
    modules = dict(local_modules(spec))
    names = {PurePosixPath(name).parts[0].removesuffix(".py") for name in modules}
    imports = set(spec.imports) | {name for data in modules.values() for name in _imported(data)}
    program = program_of(spec, script=script)
    extra = spec.algorithm.options.requirements if spec.algorithm else ()
    own_wheel_path = f"{APP_DIR}/wheels/{WHEEL_NAME}" if program.needs_us else ""
    pins = pins_for(imports, local=names, runner=program.runner)
    requirements = render_requirements(pins, own_wheel_path, extra)
    return render(
        spec,
        profile,
        program=program,
        requirements=requirements,
        wheel=own_wheel() if program.needs_us else None,
        modules=modules,
        labels=provenance(path),
        warnings=tuple(str(trap) for trap in warnings),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What the container runs.

    Attributes
    ----------
    file_name, data
        The notebook or script, in the container's working directory.
    runner
        What kaapana-nb must bring: ``"notebook"``, ``"script"``, or ``""`` for a script that stands on its own.
    """

    file_name: str
    data: bytes
    runner: str

    @property
    def needs_us(self) -> bool:
        return self.runner != ""

    @property
    def path(self) -> str:
        return f"{APP_DIR}/{self.file_name}"

    @property
    def command(self) -> list[str]:
        return ["python3", "-m", "kaapana_nb", "execute", self.path] if self.needs_us else ["python3", "-u", self.path]


def program_of(spec: NotebookSpec, *, script: bool = False) -> Program:
    """The program of a notebook or script, named after the operator whatever the file was called."""
    stem = module_name(spec.name)
    if not spec.is_script and not script:
        return Program(file_name=f"{stem}.ipynb", data=clean_notebook(spec), runner="notebook")
    if "kaapana_nb" not in spec.imports:
        return Program(file_name=f"{stem}.py", data=script_of(spec), runner="")
    return Program(file_name=f"{stem}.py", data=script_of(spec), runner="script")


def render(
    spec: NotebookSpec,
    profile: Profile,
    *,
    program: Program,
    requirements: str,
    wheel: bytes | None,
    modules: Mapping[str, bytes],
    labels: Mapping[str, str] = MappingProxyType({}),
    warnings: tuple[str, ...] = (),
) -> ExtensionFiles:
    """The extension's files. Pure: the same values give the same bytes."""
    base = f"processing-containers/{spec.name}"
    files = {
        f"{base}/Dockerfile": dockerfile(spec, profile, program, modules, labels).encode(),
        f"{base}/files/{program.file_name}": program.data,
        f"{base}/files/requirements.txt": requirements.encode(),
        **{f"{base}/files/{name}": data for name, data in modules.items()},
        **{f"extension/docker/{name}": data for name, data in dag_files(spec, profile).items()},
        **{f"extension/{name}": data for name, data in chart_files(spec, profile).items()},
    }
    if wheel is not None:
        files[f"{base}/files/wheels/{WHEEL_NAME}"] = wheel
    if profile.task_api and program.needs_us:
        files[f"{base}/files/{TASK_API_FILE}"] = processing_container(spec, program.path)
    return ExtensionFiles(
        name=spec.name,
        version=version_of(spec),
        profile=profile.name,
        program=program.file_name,
        runner=program.runner,
        files=MappingProxyType(files),
        warnings=warnings,
    )


def dockerfile(
    spec: NotebookSpec, profile: Profile, program: Program, modules: Mapping[str, bytes], labels: Mapping[str, str]
) -> str:
    """The processing container's Dockerfile.

    Unless the algorithm declares system packages, its only RUN line is the one that the layers builder understands.
    """
    tops = sorted({PurePosixPath(name).parts[0] for name in modules})
    apt = spec.algorithm.options.apt if spec.algorithm else ()
    lines = [
        f"FROM {profile.base_image}",
        f'LABEL IMAGE="{spec.name}"',
        f'LABEL VERSION="{version_of(spec)}"',
        f'LABEL {profile.ignore_label}="False"',
        f'LABEL org.opencontainers.image.title="{spec.name}"',
        f'LABEL org.opencontainers.image.version="{version_of(spec)}"',
        *(f"LABEL {name}={json.dumps(value)}" for name, value in sorted(labels.items())),
        f"ENV PYTHONPATH={PACKAGES_DIR} PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1",
        f"WORKDIR {APP_DIR}",
    ]
    if apt:
        lines.append(
            f"RUN apt-get update && apt-get install -y --no-install-recommends {' '.join(apt)} "
            "&& rm -rf /var/lib/apt/lists/*"
        )
    lines.append(f"COPY files/requirements.txt {APP_DIR}/requirements.txt")
    if program.needs_us:
        lines.append(f"COPY files/wheels {APP_DIR}/wheels")
    lines.append(
        f"RUN python3 -m pip install --no-cache-dir --no-compile --no-deps --target {PACKAGES_DIR} "
        f"-r {APP_DIR}/requirements.txt"
    )
    lines += [f"COPY files/{top} {APP_DIR}/{top}" for top in tops]
    if profile.task_api and program.needs_us:
        lines.append(f"COPY files/{TASK_API_FILE} /{TASK_API_FILE}")
    lines.append(f"COPY files/{program.file_name} {program.path}")
    lines.append(f"CMD {json.dumps(program.command)}")
    return "\n".join(lines) + "\n"


def script_of(spec: NotebookSpec) -> bytes:
    """The code cells as one Python file; a script is taken as it stands.

    Raises
    ------
    NotebookError
        When a cell uses IPython's own syntax, which plain Python does not know.
    """
    if spec.is_script:
        return spec.cells[0].source.encode()
    code = [cell for cell in spec.cells if cell.is_code]
    for cell in code:
        try:
            ast.parse(cell.source)
        except (SyntaxError, ValueError) as error:
            raise NotebookError(
                f"Cell {cell.index} of {spec.path.name} uses a magic or a shell command; a script cannot.",
                "Tag the cell `explore`, write it in Python, or export the notebook without --script.",
            ) from error
    return ("\n\n".join(f"# %%\n{cell.source.strip()}" for cell in code) + "\n").encode()


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


def check_directory(directory: Path, name: str) -> None:
    """Raise `UsageError` when an export could not be written there; writes nothing."""
    check_target(directory, "-o")
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"{directory} is a file; a directory was expected.", "Name another directory with -o.")
    other = read_record(directory).get("name", name)
    if other != name:
        raise UsageError(
            f"{directory} holds the export of {str(other)!r:.80}; that of {name} would mix with it.",
            "Name another directory with -o.",
        )


def check_target(path: Path, flag: str) -> None:
    """Raise `UsageError` when `path` could not be made or written: the nearest directory above it decides."""
    above = path.absolute()
    while not above.exists() and above != above.parent:
        above = above.parent
    made = above if above == path.absolute() else above / "x"
    if not os.access(above, os.W_OK) or (made != above and not above.is_dir()):
        raise UsageError(
            f"{path} cannot be written: {above} is read-only, or no directory.", f"Name another place with {flag}."
        )


def write_extension(extension: ExtensionFiles, directory: Path, *, force: bool = False) -> tuple[Path, ...]:
    """Write the files below `directory`, each atomically, and remove what an earlier export left over.

    Raises
    ------
    UsageError
        When a file there was edited since it was exported, or was never exported, and `force` is not set.
    """
    check_directory(directory, extension.name)
    record_path = directory / RECORD_FILE
    before = recorded_hashes(directory)
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
        if path.is_file() and not path.is_symlink() and _sha256(path) == before[name]:
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
