"""Where a notebook comes from: commit, date and repository, as labels of its image."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit, urlunsplit

FIXED_DATE = "1980-01-01T00:00:00Z"
"""Stands for the date of a notebook that is under no version control: the same notebook gives the same image."""
_PREFIX = "org.opencontainers.image"
_TIMEOUT_S = 5
_COMMIT = re.compile(r"[0-9a-f]{40,64}\Z")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}(Z|[+-][0-9]{2}:[0-9]{2})\Z")


def provenance(notebook: Path) -> Mapping[str, str]:
    """OCI labels ``created``, and for a committed, unchanged notebook ``revision`` and ``source``.

    Source: OCI image specification 1.1, "Pre-Defined Annotation Keys". Addresses lose user and password.
    """
    labels = {f"{_PREFIX}.created": FIXED_DATE}
    commit, _, date = _git(notebook, "log", "-1", "--format=%H %cI", "--", notebook.name).partition(" ")
    clean = _git(notebook, "status", "--porcelain", "--", notebook.name) == ""
    if clean and _COMMIT.match(commit) and _DATE.match(date):
        labels = {f"{_PREFIX}.created": date, f"{_PREFIX}.revision": commit}
        source = public_address(_git(notebook, "config", "--get", "remote.origin.url"))
        if source:
            labels[f"{_PREFIX}.source"] = source
    return MappingProxyType(labels)


def public_address(address: str) -> str:
    """A repository's web address without user and password; empty for paths of a machine and the like."""
    parts = urlsplit(address)
    if parts.scheme not in {"http", "https"} or not parts.hostname or not address.isprintable() or '"' in address:
        return ""
    try:
        host = parts.hostname if parts.port is None else f"{parts.hostname}:{parts.port}"
    except ValueError:
        return ""
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def _git(notebook: Path, *words: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(notebook.absolute().parent), *words],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
