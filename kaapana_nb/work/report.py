"""What came out of a run over a batch: one row per element, for notebooks, terminals and programs."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from kaapana_nb.contract.exitcodes import FAILED, OK
from kaapana_nb.errors import ContractError
from kaapana_nb.files import write_atomic

REPORT_FILE = "run-report.json"
"""Written to ``<run>/<operator out dir>/``."""

WHOLE_BATCH = "(batch)"
"""The element's name in the one row of a batch-level algorithm."""

MAX_CELL = 160
"""Longest error in a terminal's table; the report file and the notebook show it whole."""

Status = Literal["ok", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementOutcome:
    """What one element came to.

    Attributes
    ----------
    element
        Directory name of the batch element (its series UID), or ``(batch)``.
    seconds
        Wall time of loading, algorithm and writing.
    peak_mib
        Peak resident memory of the process that worked on it, in MiB; ``None`` where it could not be measured.
    outputs
        Files written, relative to the run directory.
    error, remedy
        Problem and remedy of a failure, in one line each; empty otherwise.
    printed
        What the algorithm printed, for the one who watches; it is not kept in the report's file.
    """

    element: str
    status: Status
    seconds: float
    peak_mib: float | None = None
    outputs: tuple[str, ...] = ()
    error: str = ""
    remedy: str = ""
    printed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """The outcome of an algorithm over a batch; shown as a table in a notebook and in a terminal."""

    algorithm: str
    version: str
    parameters: Mapping[str, Any]
    output_dir: str
    elements: tuple[ElementOutcome, ...]
    seconds: float

    @property
    def failed(self) -> tuple[ElementOutcome, ...]:
        return tuple(outcome for outcome in self.elements if outcome.status == "failed")

    @property
    def ok(self) -> bool:
        return not self.failed

    @property
    def exit_code(self) -> int:
        """1 when any element failed, else 0."""
        return FAILED if self.failed else OK

    @property
    def summary(self) -> str:
        done = len(self.elements) - len(self.failed)
        return f"{self.algorithm}: {done} of {len(self.elements)} succeeded in {self.seconds:.1f} s"

    def to_frame(self) -> Any:
        """The rows as a pandas ``DataFrame``, indexed by element."""
        import pandas as pd

        return pd.DataFrame([asdict(outcome) for outcome in self.elements]).set_index("element")

    def to_json(self) -> dict[str, Any]:
        """JSON-ready form; ``elements`` has the documented keys of ``kaapana-nb run --json``."""
        return {
            "algorithm": self.algorithm,
            "version": self.version,
            "parameters": dict(self.parameters),
            "output_dir": self.output_dir,
            "seconds": self.seconds,
            "elements": [_row(outcome) for outcome in self.elements],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RunReport:
        rows = tuple(ElementOutcome(**{**row, "outputs": tuple(row["outputs"])}) for row in data["elements"])
        return cls(**{**data, "elements": rows})

    def table(self) -> str:
        """The rows as text for a terminal."""
        head = ("element", "status", "seconds", "peak MiB", "error")
        rows = [head, *((*cells[:-1], _short(cells[-1])) for cells in map(_cells, self.elements))]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        right = {2, 3}
        lines = [
            "  ".join(
                cell.rjust(w) if i in right else cell.ljust(w)
                for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ]
        return "\n".join(line.rstrip() for line in lines)

    def __str__(self) -> str:
        return f"{self.summary}\n{self.table()}"

    def __repr__(self) -> str:
        return f"<RunReport {self.summary}>"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td><code>{html.escape(row[0])}</code></td>"
            + "".join(
                f"<td style='text-align:{'left' if i in (1, 4) else 'right'}'>{html.escape(cell)}</td>"
                for i, cell in enumerate(row)
                if i
            )
            + "</tr>"
            for row in map(_cells, self.elements)
        )
        return (
            f"<div class='kaapana-nb-report'><p><b>{html.escape(self.summary)}</b>; results in "
            f"<code>{html.escape(self.output_dir)}</code></p><table><thead><tr><th>element</th><th>status</th>"
            f"<th>seconds</th><th>peak MiB</th><th>error</th></tr></thead><tbody>{rows}</tbody></table></div>"
        )

    def save(self, path: Path) -> None:
        """Write the report as JSON, atomically."""
        write_atomic(path, json.dumps(self.to_json(), indent=1, sort_keys=True, allow_nan=False).encode())


def load_report(path: Path) -> RunReport:
    """Read a report that `RunReport.save` wrote.

    Raises
    ------
    ContractError
        When there is none, or it is not one of ours.
    """
    try:
        return RunReport.from_json(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ContractError(
            f"There is no readable run report at {path}.",
            "Run the algorithm first: kaapana-nb run NOTEBOOK --batch DIR.",
        ) from error


def _row(outcome: ElementOutcome) -> dict[str, Any]:
    row = asdict(outcome) | {"outputs": list(outcome.outputs)}
    del row["printed"]
    return row


def _short(text: str) -> str:
    return text if len(text) <= MAX_CELL else text[: MAX_CELL - 1] + "…"


def _cells(outcome: ElementOutcome) -> tuple[str, str, str, str, str]:
    peak = "" if outcome.peak_mib is None else f"{outcome.peak_mib:.0f}"
    error = f"{outcome.error} Remedy: {outcome.remedy}" if outcome.error else ""
    return outcome.element, outcome.status, f"{outcome.seconds:.2f}", peak, error
