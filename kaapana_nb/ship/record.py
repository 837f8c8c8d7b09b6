"""``export.json``: what an export wrote, with hashes, so that later steps know what nobody edited."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

RECORD_FILE = "export.json"


def read_record(directory: Path) -> dict[str, Any]:
    """The record of the export in `directory`; empty when there is none that can be read."""
    try:
        record = json.loads((directory / RECORD_FILE).read_bytes())
        return record if isinstance(record, dict) else {}
    except (OSError, ValueError):
        return {}


def allowed_of(directory: Path) -> frozenset[str]:
    """Fingerprints that were allowed when the export in `directory` was written."""
    allowed = read_record(directory).get("allowed")
    return frozenset(item for item in allowed if isinstance(item, str)) if isinstance(allowed, list) else frozenset()


def recorded_hashes(directory: Path) -> dict[str, str]:
    """SHA-256 by path of what was exported to `directory`; paths that would leave it do not count."""
    files = read_record(directory).get("files")
    return {
        str(name): str(value)
        for name, value in (files.items() if isinstance(files, dict) else ())
        if not str(name).startswith("/") and ".." not in PurePosixPath(str(name)).parts
    }
