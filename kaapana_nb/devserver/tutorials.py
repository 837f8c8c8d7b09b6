"""The tutorials' way into the workspace: copied once, never over what the user has changed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import kaapana_nb
from kaapana_nb.errors import NotebookError, UsageError
from kaapana_nb.files import write_atomic

DEFAULT_NOTEBOOK = "otsus_method.ipynb"


def shipped_notebooks() -> Path:
    """Directory of the tutorials: in the repository beside the package, installed inside it.

    Raises
    ------
    NotebookError
        When there is none.
    """
    package = Path(kaapana_nb.__file__).parent
    for directory in (package.parent / "notebooks", package / "notebooks"):
        if any(directory.glob("*.ipynb")):
            return directory
    raise NotebookError(
        f"There are no tutorials in {package.parent / 'notebooks'}.",
        "Check the clone out again: git checkout notebooks",
    )


def copy_tutorials(source: Path, workspace: Path, record: Path) -> list[str]:
    """Copy the notebooks of `source` into `workspace` and return notes for the user.

    A notebook that is not there is copied. One that the user has not changed follows the
    shipped version. One that the user has changed (running it counts) is never touched; a
    newer shipped version is put beside it as ``<name>.<start of its hash>.ipynb``.

    Parameters
    ----------
    record
        JSON file that remembers the hash of each copied version.
    """
    known = _read_record(record)
    notes = []
    for notebook in sorted(source.glob("*.ipynb")):
        shipped = notebook.read_bytes()
        target = workspace / notebook.name
        copied, newest = known.get(notebook.name), _hash(shipped)
        mine = _hash(target.read_bytes()) if target.exists() else None
        if mine in (None, copied, newest):
            if mine != newest:
                write_atomic(target, shipped)
        elif copied not in (None, newest):
            newer = target.with_name(f"{target.stem}.{newest[:8]}.ipynb")
            write_atomic(newer, shipped)
            notes.append(f"{target.name} has a newer version; yours is untouched, the newer one is {newer.name}")
        else:
            continue
        known[notebook.name] = newest
    write_atomic(record, json.dumps(known, indent=1, sort_keys=True).encode())
    return notes


def find_notebook(workspace: Path, name: str) -> str:
    """Path of a notebook relative to `workspace`, as JupyterLab's addresses have it.

    Raises
    ------
    UsageError
        When it is not in the workspace.
    """
    path = (workspace / name).resolve()
    if path.suffix != ".ipynb":
        path = path.with_name(path.name + ".ipynb")
    if not path.is_file() or not path.is_relative_to(workspace.resolve()):
        there = ", ".join(sorted(entry.name for entry in workspace.glob("*.ipynb"))) or "none"
        raise UsageError(f"There is no notebook {name!r} in the workspace {workspace}.", f"Choose one of: {there}.")
    return path.relative_to(workspace.resolve()).as_posix()


def _read_record(record: Path) -> dict[str, str]:
    try:
        known = json.loads(record.read_bytes())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
