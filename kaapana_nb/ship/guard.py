"""The privacy guard: nothing of an extension is written, built or pushed before it was searched."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kaapana_nb.data.batch import Batch
from kaapana_nb.ship.export import ExtensionFiles
from kaapana_nb.ship.identifiers import Identifiers, collect_identifiers
from kaapana_nb.ship.privacy import Finding, require_private, scan_files


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """What the guard let through, for the user to read.

    Attributes
    ----------
    allowed
        Findings that the user allowed by their fingerprints.
    unread
        Batch elements without a readable header: their patients' identifiers are not known.
    fingerprints
        Of what was allowed, for the export's record: as seen with this batch, and as seen without any.
    """

    allowed: tuple[Finding, ...] = ()
    unread: tuple[str, ...] = ()
    fingerprints: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """A line for each."""
        unread = [f"not searched for the patient of {name}: it has no readable DICOM header" for name in self.unread]
        return [f"allowed: {finding}" for finding in self.allowed] + unread


def guard(
    extension: ExtensionFiles, *, batch: Batch | None, allowed: frozenset[str], notebook: Path | None = None
) -> Guarded:
    """Search every file for secrets and, with a batch, for what identifies its patients.

    The outputs of `notebook` are searched too, for everything but UIDs: they are never exported, but a name among
    them says that the notebook itself must not be passed on as it is.

    Raises
    ------
    PrivacyError
        When there is a finding that `allowed` (fingerprints) does not take; it names file, cell and line, with the
        value masked.
    """
    identifiers = Identifiers() if batch is None else collect_identifiers(batch)
    findings = scan_files(extension.files, identifiers)
    if notebook is not None and notebook.suffix == ".ipynb":
        findings += scan_files({notebook.name: _outputs(notebook)}, replace(identifiers, uids=frozenset()))
    require_private(finding for finding in findings if finding.fingerprint not in allowed)
    return _guarded(findings, identifiers, extension.files)


def _guarded(findings: tuple[Finding, ...], identifiers: Identifiers, files: Mapping[str, bytes]) -> Guarded:
    fingerprints = {finding.fingerprint for finding in findings}
    if findings and len(identifiers):
        places = {(finding.file, finding.cell, finding.line, finding.kind) for finding in findings}
        for finding in scan_files(files, Identifiers()):
            if (finding.file, finding.cell, finding.line, finding.kind) in places:
                fingerprints.add(finding.fingerprint)
    return Guarded(allowed=findings, unread=identifiers.unread, fingerprints=tuple(sorted(fingerprints)))


def guard_files(files: Mapping[str, bytes], *, batch: Batch | None, allowed: frozenset[str]) -> Guarded:
    """Search files of a build context, as `guard` does.

    Raises
    ------
    PrivacyError
        As `guard` does.
    """
    identifiers = Identifiers() if batch is None else collect_identifiers(batch)
    findings = scan_files(files, identifiers)
    require_private(finding for finding in findings if finding.fingerprint not in allowed)
    return _guarded(findings, identifiers, files)


def _outputs(path: Path) -> bytes:
    """A notebook of the outputs alone, cell by cell, without their pictures."""
    notebook = json.loads(path.read_bytes())
    cells = [
        {
            "cell_type": "code",
            "metadata": {},
            "source": "",
            "outputs": [_text(item) for item in cell.get("outputs", [])],
        }
        for cell in notebook["cells"]
    ]
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}).encode()


def _text(output: dict[str, Any]) -> dict[str, Any]:
    data = output.get("data", {})
    return {**output, "data": {kind: value for kind, value in data.items() if not kind.startswith("image/")}}
