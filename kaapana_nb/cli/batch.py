"""``kaapana-nb batch``: the series of a batch, and what is wrong with its files."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kaapana_nb.cli.run import open_batch
from kaapana_nb.contract.exitcodes import FAILED, OK

if TYPE_CHECKING:
    from kaapana_nb.data.batch import Batch
    from kaapana_nb.data.index import SeriesRow, SourceIndex

_EXAMPLE = """\
example:
  kaapana-nb batch ls DIR              a table of the series
  kaapana-nb batch check DIR --json    every problem of every file, for programs

DIR is a workflow run (the directory that holds `batch`), or any directory of DICOM files.
"""


def register(subparsers: Any) -> None:
    """Add ``batch`` with its sub-commands ``ls`` and ``check``."""
    parser = subparsers.add_parser(
        "batch",
        help="the series of a batch, and the problems of its files",
        description="The series of a batch, and the problems of its files.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", dest="batch_command", metavar="COMMAND", required=True)
    for name, handler, text in (
        ("ls", _ls, "A table of the series."),
        (
            "check",
            _check,
            "Every problem of every file, with its remedy. Exit code 1 when something cannot be processed.",
        ),
    ):
        command = commands.add_parser(
            name,
            help=text.split(".")[0].lower(),
            description=text,
            epilog=f"example:\n  kaapana-nb batch {name} DIR --json",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_argument("dir", metavar="DIR", type=Path, help="a workflow run, or a directory of DICOM files")
        command.add_argument(
            "--in",
            "--input",
            dest="input_name",
            metavar="NAME",
            help="the operator directory to look at (default: the usual one)",
        )
        command.add_argument("--json", action="store_true", help="print one JSON object")
        if name == "ls":
            command.add_argument("--identifiers", action="store_true", help="show PatientID too")
        command.set_defaults(handler=handler)


def _ls(args: argparse.Namespace) -> int:
    batch, indexes = _index(args)
    patients = _patients(batch) if args.identifiers else {}
    rows = [_as_json(row, patients) for index in indexes for row in index.series]
    if args.json:
        print(json.dumps({"series": rows}, indent=2))
    else:
        print(_table(rows, identifiers=args.identifiers))
    return OK


def _check(args: argparse.Namespace) -> int:
    from kaapana_nb.data.index import located_problems

    _, indexes = _index(args)
    problems = located_problems(indexes)
    if args.json:
        rows = [
            {"path": str(p.path), "problem": p.problem, "remedy": p.remedy, "severity": p.severity} for p in problems
        ]
        print(json.dumps({"problems": rows}, indent=2))
    else:
        for problem in problems:
            print(
                f"{_printable(str(problem.path))}\n  {problem.severity}: {problem.problem}\n  remedy: {problem.remedy}"
            )
    errors = sum(problem.severity == "error" for problem in problems)
    series = sum(len(index.series) for index in indexes)
    print(f"{series} series, {errors} errors, {len(problems) - errors} warnings", file=sys.stderr)
    return FAILED if errors else OK


def _index(args: argparse.Namespace) -> tuple[Batch, list[SourceIndex]]:
    from tqdm import tqdm

    from kaapana_nb.data.progress import Job

    batch = open_batch(args.dir, args.input_name)
    with tqdm(total=len(batch), desc="headers", unit="series", leave=False, disable=None, delay=1) as bar:

        def show(done: int, total: int, what: str) -> None:
            if what == "reading headers":
                bar.total = total
                bar.update(done - bar.n)

        return batch, batch.index(job=Job(show))


def _patients(batch: Batch) -> dict[str, str | None]:
    from kaapana_nb.data.reader import read_headers
    from kaapana_nb.errors import BatchError

    patients: dict[str, str | None] = {}
    for element in batch:
        try:
            header = next(iter(read_headers(element.files()[:8])), None)
        except BatchError:
            continue
        patients[element.name] = header.patient_id if header is not None else None
    return patients


def _as_json(row: SeriesRow, patients: dict[str, str | None]) -> dict[str, Any]:
    values: dict[str, Any] = {
        "series_uid": row.series_uid,
        "modality": row.modality,
        "instances": row.instances,
        "rows": row.rows,
        "columns": row.columns,
        "spacing_mm": None if row.spacing_mm is None else list(row.spacing_mm),
        "problems": row.problems,
        "study_uid": row.study_uid,
        "description": row.description,
        "body_part": row.body_part,
        "files": row.files,
        "complete": row.complete,
        "transfer_syntax_uid": row.transfer_syntax_uid,
        "element": row.name,
    }
    if patients:
        values["patient_id"] = patients.get(row.name)
    return values


def _table(rows: list[dict[str, Any]], *, identifiers: bool) -> str:
    names = [
        "series_uid",
        "modality",
        "description",
        "body_part",
        "instances",
        "size",
        "spacing_mm",
        "complete",
        "problems",
    ]
    if identifiers:
        names.append("patient_id")
    lines = [names]
    for row in rows:
        size = f"{row['columns']} x {row['rows']}" if row["rows"] else None
        spacing = row["spacing_mm"]
        shown = None if spacing is None else " x ".join("?" if value is None else f"{value:.4g}" for value in spacing)
        complete = {True: "yes", False: "no", None: None}[row["complete"]]
        cells = {**row, "size": size, "spacing_mm": shown, "complete": complete}
        lines.append(["-" if cells.get(name) is None else _printable(str(cells[name])) for name in names])
    widths = [max(len(line[column]) for line in lines) for column in range(len(names))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _printable(text: str) -> str:
    """Text from a header or a file name without what would move the terminal's cursor."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
