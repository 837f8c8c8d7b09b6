"""The privacy guard: nothing of an extension is written, built or pushed before it was searched."""

from __future__ import annotations

from pathlib import Path

from kaapana_nb.data.batch import Batch
from kaapana_nb.errors import PrivacyError
from kaapana_nb.ship.export import ExtensionFiles
from kaapana_nb.ship.identifiers import Identifiers, collect_identifiers
from kaapana_nb.ship.privacy import Finding, scan_files

SHOWN = 10
"""Findings named in an error; the rest are counted."""


def guard(extension: ExtensionFiles, *, batch: Batch | None, allowed: frozenset[str]) -> tuple[Finding, ...]:
    """Search every file for secrets and, with a batch, for what identifies its patients.

    Returns
    -------
    tuple[Finding, ...]
        The findings that `allowed` (fingerprints) takes.

    Raises
    ------
    PrivacyError
        At the first call that finds something else; it names file, cell and line, with the value masked.
    """
    identifiers = Identifiers() if batch is None else collect_identifiers(batch)
    findings = scan_files(extension.files, identifiers)
    wrong = [finding for finding in findings if finding.fingerprint not in allowed]
    if wrong:
        lines = "; ".join(str(finding) for finding in wrong[:SHOWN])
        more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise PrivacyError(
            f"{extension.name} would carry {len(wrong)} thing(s) that must not leave: {lines}{more}.",
            "Remove them from the notebook or the module. A finding that is harmless is taken with "
            f"--allow {wrong[0].fingerprint}",
        )
    return tuple(finding for finding in findings if finding.fingerprint in allowed)


def batch_to_guard(path: Path | None) -> Batch | None:
    """The batch of ``--batch`` for `guard`, or none."""
    return None if path is None else Batch.open(path)
