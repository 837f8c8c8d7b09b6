"""Parity proof: do two runs of an operator on the same batch give the same results?

Every file below each element's output directory and below the run's own is compared by what it
means (`compare_files`), file by file; a file that only one side has is a difference.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from types import MappingProxyType
from typing import Any

from kaapana_nb.errors import ParityError, UsageError
from kaapana_nb.ship.compare_dicom import pair_renamed
from kaapana_nb.ship.compare_files import EXACT, Tolerance, file_difference, kind_of

BATCH_LEVEL = "(batch)"
"""Stands for the element in rows about results of the whole batch."""

NOT_RESULTS: Mapping[str, str] = MappingProxyType(
    {
        "*.ipynb": "the executed notebook: holds times and memory use",
        "run-report.json": "the run's report: holds times and memory use",
        "*.html": "reports made from the executed notebook",
    }
)
"""Files of the run's own output directory that are no results, with the reason. Elsewhere every file counts."""

_COLUMNS = ("element", "output", "equal", "difference")


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementParity:
    """One output of one batch element on both sides.

    Attributes
    ----------
    element
        Name of the element's directory, or `BATCH_LEVEL`.
    output
        Path below the output directory.
    difference
        What differs and where, empty when nothing does. Texts that may identify a patient are not quoted.
    """

    element: str
    output: str
    equal: bool
    difference: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityReport:
    """Every output of both sides, by element and path."""

    elements: tuple[ElementParity, ...]

    @property
    def equal(self) -> bool:
        """Whether every output is the same on both sides."""
        return all(row.equal for row in self.elements)

    @property
    def differences(self) -> tuple[ElementParity, ...]:
        """The outputs that are not."""
        return tuple(row for row in self.elements if not row.equal)

    def to_json(self) -> dict[str, Any]:
        """The keys of ``kaapana-nb verify --json``."""
        rows = [{name: getattr(row, name) for name in _COLUMNS} for row in self.elements]
        return {"equal": self.equal, "elements": rows}

    def table(self) -> str:
        """A text table with a row per output and a last line that counts them."""
        rows = [_COLUMNS] + [
            (_printable(row.element), _printable(row.output), "yes" if row.equal else "NO", _printable(row.difference))
            for row in self.elements
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [
            "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]).rstrip()
            for row in rows
        ]
        lines.insert(1, "  ".join("-" * width for width in (*widths, len(_COLUMNS[3]))))
        same = len(self.elements) - len(self.differences)
        lines.append(f"{same} of {len(self.elements)} outputs are equal.")
        return "\n".join(lines)


def compare_results(
    left_run: Path,
    right_run: Path,
    *,
    batch_name: str,
    output_name: str,
    tolerances: Mapping[str, Tolerance] | None = None,
) -> ParityReport:
    """Compare what an operator wrote in two run directories of the same batch.

    Parameters
    ----------
    output_name
        The operator's output directory, below each element and below the run.
    tolerances
        By suffix (``.nrrd``, ``.json`` …); a suffix that is not named is compared exactly.

    Raises
    ------
    ParityError
        When neither side has any output: nothing is proved then.
    UsageError
        For a tolerance that is none.
    """
    allowed = _checked(tolerances or {})
    left_batch, right_batch = left_run / batch_name, right_run / batch_name
    known_uids = frozenset(_input_uids(left_batch, output_name)) | frozenset(_input_uids(right_batch, output_name))
    rows: list[ElementParity] = []
    for element in sorted({*_directories(left_batch), *_directories(right_batch)}):
        left, right = left_batch / element / output_name, right_batch / element / output_name
        rows += _compare_directories(element, left, right, allowed, known_uids)
    rows += [
        row
        for row in _compare_directories(
            BATCH_LEVEL, left_run / output_name, right_run / output_name, allowed, known_uids
        )
        if not any(fnmatch(row.output.lower(), pattern) for pattern in NOT_RESULTS)
    ]
    if not rows:
        raise ParityError(
            f"Neither side has any result in {output_name!r}, so there is nothing to compare.",
            "Run the notebook and the container on the batch first, and check the name of the output directory.",
        )
    return ParityReport(elements=tuple(rows))


def _compare_directories(
    element: str, left: Path, right: Path, tolerances: Mapping[str, Tolerance], known_uids: frozenset[str]
) -> list[ElementParity]:
    lefts, rights = dict(_entries(left)), dict(_entries(right))
    renamed = pair_renamed(
        {name: left / name for name in lefts if name not in rights and lefts[name]},
        {name: right / name for name in rights if name not in lefts and rights[name]},
    )
    rows = []
    for name in sorted({*lefts, *rights} - set(renamed.values())):
        other = renamed.get(name, name)
        if name not in lefts or other not in rights:
            difference = f"only the {'left' if name in lefts else 'right'} side has it"
        elif not (lefts[name] and rights[other]):
            difference = "it is no regular file"
        else:
            tolerance = tolerances.get(kind_of(name), EXACT)
            difference = file_difference(left / name, right / other, tolerance, known_uids=known_uids)
        rows.append(ElementParity(element=element, output=name, equal=not difference, difference=difference))
    return rows


def _entries(directory: Path) -> Iterator[tuple[str, bool]]:
    """Every entry that is no directory, relative to `directory`, and whether it is a regular file."""
    for parent, directories, files in os.walk(directory):
        for name in sorted([*files, *(d for d in directories if (Path(parent) / d).is_symlink())]):
            path = Path(parent) / name
            yield path.relative_to(directory).as_posix(), stat.S_ISREG(path.lstat().st_mode)


def _directories(directory: Path) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _input_uids(batch: Path, output_name: str) -> Iterator[str]:
    """UIDs that a batch came with: of its series (directories) and instances (files of the other operators)."""
    for element in _directories(batch):
        yield element
        for operator in _directories(batch / element):
            if operator != output_name:
                yield from (name.removesuffix(".dcm") for name, _ in _entries(batch / element / operator))


def _checked(tolerances: Mapping[str, Tolerance]) -> dict[str, Tolerance]:
    for suffix, tolerance in tolerances.items():
        numbers = (tolerance.absolute, tolerance.relative)
        if not suffix.startswith(".") or not all(math.isfinite(number) and number >= 0 for number in numbers):
            raise UsageError(
                f"The tolerance {numbers} for {suffix!r} is none; finite numbers from 0 on for a suffix with its dot "
                "were expected.",
                "Give it e.g. as {'.nrrd': Tolerance(absolute=1e-6)}.",
            )
    return {suffix.lower(): tolerance for suffix, tolerance in tolerances.items()}


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "�" for character in text)
