"""`Batch` and `BatchElement`: the series of one workflow run, where they lie and how they are read.

Opening a batch reads directories only; headers and pixels are read when they are asked for.
"""

from __future__ import annotations

import html
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kaapana_nb.contract.context import DEFAULT_INPUT, RunContext
from kaapana_nb.contract.names import directory_name
from kaapana_nb.data.element import BatchElement, is_uid
from kaapana_nb.data.scan import OWN_DIRECTORY
from kaapana_nb.errors import BatchError, KaapanaNbError

if TYPE_CHECKING:
    from kaapana_nb.data.index import SeriesRow, Source, SourceIndex
    from kaapana_nb.data.progress import Job

__all__ = ["Batch", "BatchElement"]

DEFAULT_OUTPUT = "output"
BATCH_NAME = "batch"
_USUAL_INPUTS = (DEFAULT_INPUT, "initial-input")


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The series of one workflow run. Iterates over its elements; indexed by number or series UID.

    Attributes
    ----------
    run_dir
        The run's directory, ``<run>``.
    batch_dir
        ``<run>/batch``.
    elements
        The elements, by directory name.
    input_name, output_name
        Directories of input and results below each element.
    context
        The environment that the batch was opened from; ``None`` for `open`.
    source_dir
        Directory of DICOM files that is no workflow run; ``None`` otherwise.
    """

    run_dir: Path
    batch_dir: Path
    elements: tuple[BatchElement, ...]
    input_name: str
    output_name: str
    context: RunContext | None = None
    source_dir: Path | None = None

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        input_name: str | None = None,
        output_name: str | None = None,
        run_dir: str | os.PathLike[str] | None = None,
        job: Job | None = None,
    ) -> Batch:
        """Open the batch of a run directory, a batch directory itself, or any directory of DICOM files.

        Parameters
        ----------
        input_name
            Directory of the input below each element; default: the one that the elements have.
        output_name
            Directory of the results below each element.
        run_dir
            Where results go for a directory that is no workflow run; default: ``kaapana-run`` in it.
        job
            Tells progress, and cancels, where every header has to be read to tell the series apart.

        Raises
        ------
        BatchError
            When there is no batch, no element in it, or no clear input.
        """
        directory = Path(path).absolute()
        if (directory / BATCH_NAME).is_dir():
            found_run, batch_dir = directory, directory / BATCH_NAME
        elif directory.name == BATCH_NAME and directory.is_dir():
            found_run, batch_dir = directory.parent, directory
        elif directory.is_dir():
            loose_run = directory / OWN_DIRECTORY if run_dir is None else Path(run_dir).absolute()
            return cls._of_files(directory, loose_run, input_name or DEFAULT_INPUT, output_name or DEFAULT_OUTPUT, job)
        else:
            raise BatchError(
                f"{directory} does not exist; <run>/batch/<SeriesInstanceUID>/<operator>/ was expected.",
                "Name the run's directory, the one that holds `batch`, or a directory of DICOM files.",
            )
        return cls._of(found_run, batch_dir, input_name, output_name or DEFAULT_OUTPUT, None)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] | None = None, *, default_input: str = DEFAULT_INPUT) -> Batch:
        """Open the batch that the platform's environment variables name.

        Parameters
        ----------
        default_input
            Input where the platform set no ``OPERATOR_IN_DIR``.

        Raises
        ------
        ContractError
            When the environment names no run.
        BatchError
            When there is no batch or no element in it.
        """
        context = RunContext.from_environ(environ)
        context = replace(context, environ=dict(context.environ))  # a batch travels to worker processes by pickle
        if not context.batch_dir.is_dir():
            raise BatchError(
                f"The batch {context.batch_dir} does not exist.",
                "Set WORKFLOW_DIR and BATCH_NAME to a run that has a batch, or name one: Batch.open(DIR).",
            )
        return cls._of(
            context.run_dir,
            context.batch_dir,
            context.operator_in_dir or default_input,
            context.operator_out_dir or DEFAULT_OUTPUT,
            context,
        )

    @classmethod
    def _of(
        cls, run_dir: Path, batch_dir: Path, input_name: str | None, output_name: str, context: RunContext | None
    ) -> Batch:
        names = _directories(batch_dir)
        if not names:
            raise BatchError(
                f"The batch {batch_dir} has no element; one directory per series was expected.",
                "Check that the operator that fetches the input ran and found series.",
            )
        if input_name is None:
            input_name = _guess_input(batch_dir, names, output_name)
        input_name = _operator_name(input_name, "The input")
        output_name = _operator_name(output_name, "The output")
        _differ(input_name, output_name)
        elements = tuple(
            BatchElement(element_dir=batch_dir / name, input_name=input_name, output_name=output_name) for name in names
        )
        return cls(
            run_dir=run_dir,
            batch_dir=batch_dir,
            elements=elements,
            input_name=input_name,
            output_name=output_name,
            context=context,
        )

    @classmethod
    def _of_files(cls, directory: Path, run_dir: Path, input_name: str, output_name: str, job: Job | None) -> Batch:
        """The series of a directory of DICOM files; reads every header once, to know which file is whose."""
        from kaapana_nb.data.index import Source, index_sources

        input_name = _operator_name(input_name, "The input")
        output_name = _operator_name(output_name, "The output")
        _differ(input_name, output_name)
        members: dict[str, list[str]] = {}
        for index in index_sources([Source(None, directory)], directory, job=job):
            for header in index.instances():
                if header.series_uid is not None and is_uid(header.series_uid):
                    members.setdefault(header.series_uid, []).append(header.file_name)
        if not members:
            raise BatchError(
                f"{directory} has no batch directory and no DICOM file with a SeriesInstanceUID; "
                "<run>/batch/<SeriesInstanceUID>/<operator>/ or DICOM files were expected.",
                "Name the run's directory, the one that holds `batch`, or a directory of DICOM files.",
            )
        elements = tuple(
            BatchElement(
                element_dir=run_dir / BATCH_NAME / uid,
                input_name=input_name,
                output_name=output_name,
                source_dir=directory,
                members=tuple(names),
            )
            for uid, names in sorted(members.items())
        )
        return cls(
            run_dir=run_dir,
            batch_dir=run_dir / BATCH_NAME,
            elements=elements,
            input_name=input_name,
            output_name=output_name,
            source_dir=directory,
        )

    def series_table(self) -> list[SeriesRow]:
        """One row per series, from one header each: at once, but without problems and gaps (see `index`)."""
        from kaapana_nb.data.index import series_table

        if self.source_dir is not None:
            return [row for index in self.index() for row in index.series]
        return series_table(self._sources())

    def index(self, *, job: Job | None = None) -> list[SourceIndex]:
        """Series, problems and header rows of every file; remembered beside the batch until files change.

        Parameters
        ----------
        job
            Tells progress, and cancels.
        """
        from kaapana_nb.data.index import index_sources

        return index_sources(self._sources(), self.source_dir or self.run_dir, job=job)

    def _sources(self) -> list[Source]:
        from kaapana_nb.data.index import Source

        if self.source_dir is not None:
            return [Source(None, self.source_dir)]
        return [Source(element.name, element.input_dir) for element in self.elements]

    @property
    def output_dir(self) -> Path:
        """Directory of results of the whole batch: ``<run>/<output_name>``."""
        return self.run_dir / self.output_name

    def __len__(self) -> int:
        return len(self.elements)

    def __iter__(self) -> Iterator[BatchElement]:
        return iter(self.elements)

    def __getitem__(self, key: int | str) -> BatchElement:
        """The element of a number or a series UID.

        Raises
        ------
        BatchError
            When there is none. (An ``IndexError`` is not needed: the batch has its own iterator.)
        """
        if isinstance(key, str):
            found = [element for element in self.elements if element.name == key]
            found = found or [element for element in self.elements if _has_uid(element, key)]
            if not found:
                raise BatchError(
                    f"The batch has no series {key!r} among its {len(self)}.",
                    "List the series: kaapana-nb batch ls DIR",
                )
            return found[0]
        try:
            return self.elements[key]
        except IndexError:
            raise BatchError(
                f"The batch has no element {key}; it has {len(self)}, numbered from 0.", "Choose a smaller number."
            ) from None

    def with_input(self, name: str) -> Batch:
        """The same batch with another operator's directory as its input."""
        _operator_name(name, "The input")
        _differ(name, self.output_name)
        elements = tuple(replace(element, input_name=name, source_dir=None, members=None) for element in self.elements)
        return replace(self, input_name=name, elements=elements, source_dir=None)

    def with_output(self, name: str) -> Batch:
        """The same batch with its results going to another directory."""
        _operator_name(name, "The output")
        _differ(self.input_name, name)
        elements = tuple(replace(element, output_name=name) for element in self.elements)
        return replace(self, output_name=name, elements=elements)

    def __repr__(self) -> str:
        return f"Batch({self.run_dir.name!r}, {len(self)} series, {self.input_name} -> {self.output_name})"

    def _repr_html_(self) -> str:
        """The series table, without anything that identifies a patient."""
        head = "".join(f"<th>{title}</th>" for title in ("", *_COLUMNS))
        body = "".join(_html_row(number, row) for number, row in enumerate(self.series_table()))
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


_COLUMNS = ("series", "modality", "description", "body part", "files", "rows", "columns")


def _html_row(number: int, row: SeriesRow) -> str:
    values = (row.name, row.modality, row.description, row.body_part, row.files, row.rows, row.columns)
    cells = [str(number), *("" if value is None else str(value) for value in values)]
    return f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>"


def _has_uid(element: BatchElement, uid: str) -> bool:
    try:
        return element.series_uid == uid
    except BatchError:
        return False


def _directories(directory: Path) -> list[str]:
    with os.scandir(directory) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _guess_input(batch_dir: Path, names: list[str], output_name: str) -> str:
    """The input that a batch opened by hand most likely means."""
    counts: Counter[str] = Counter()
    for name in names:
        counts.update(directory for directory in _directories(batch_dir / name) if directory != output_name)
    usual = next((name for name in _USUAL_INPUTS if name in counts), None)
    if usual is not None:
        return usual
    if len(counts) == 1:
        return next(iter(counts))
    seen = f"{', '.join(sorted(counts)[:10])}" if counts else "none"
    raise BatchError(
        f"The elements of {batch_dir} have no {DEFAULT_INPUT!r} directory to read from; directories seen: {seen}.",
        "Name the input: --in NAME, in Python Batch.open(DIR, input_name=NAME).",
    )


def _operator_name(name: str, what: str) -> str:
    try:
        return directory_name(name, what)
    except KaapanaNbError as error:
        raise BatchError(error.problem, "Give a plain directory name such as get-input-data.") from error


def _differ(input_name: str, output_name: str) -> None:
    if input_name == output_name:
        raise BatchError(
            f"Input and output are both {input_name!r}: results would be mixed with what they are made from.",
            "Give the output another name: batch.with_output(NAME).",
        )
