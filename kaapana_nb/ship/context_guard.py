"""The privacy guard of a build: its context may have been edited since the export was searched."""

from __future__ import annotations

import hashlib
from pathlib import Path

from kaapana_nb.data.batch import Batch
from kaapana_nb.ship.record import allowed_of, recorded_hashes


def guard_context(directory: Path, context: Path, *, batch: Batch | None) -> None:
    """Search a build context of the export in `directory` before an image is made of it.

    Without a batch, files that are as they were exported are not searched again. What was allowed then is allowed.

    Raises
    ------
    PrivacyError
        As `kaapana_nb.ship.guard.guard` does.
    """
    exported = {} if batch is not None else recorded_hashes(directory)
    files = {}
    for path in sorted(context.rglob("*")):
        if path.is_file() and not path.is_symlink():
            name, data = path.relative_to(directory).as_posix(), path.read_bytes()
            if exported.get(name) != hashlib.sha256(data).hexdigest():
                files[name] = data
    if files:
        from kaapana_nb.ship.guard import guard_files  # the scanners are slow to import, and seldom needed here

        guard_files(files, batch=batch, allowed=allowed_of(directory))


def batch_to_guard(path: Path | None) -> Batch | None:
    """The batch of ``--batch``, or none."""
    return None if path is None else Batch.open(path)
