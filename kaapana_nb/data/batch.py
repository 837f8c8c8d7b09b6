"""`Batch` and `BatchElement`: the series of one workflow run, where they lie and how they are read.

Opening a batch reads directories only; headers and pixels are read when they are asked for.
"""

from __future__ import annotations

import html
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kaapana_nb.contract.context import DEFAULT_INPUT, RunContext
from kaapana_nb.contract.names import directory_name
from kaapana_nb.errors import BatchError, DicomError, KaapanaNbError

if TYPE_CHECKING:
    import SimpleITK as sitk

    from kaapana_nb.data.header import InstanceHeader
    from kaapana_nb.data.volume import SeriesVolume

DEFAULT_OUTPUT = "output"
BATCH_NAME = "batch"
IMAGE_SUFFIXES = (".nrrd", ".nii", ".nii.gz", ".mha")
_USUAL_INPUTS = (DEFAULT_INPUT, "initial-input")
_UID = re.compile(r"[0-9]+(\.[0-9]+)+\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchElement:
    """One series of a batch: a directory that holds one directory per operator.

    Attributes
    ----------
    element_dir
        ``<run>/batch/<SeriesInstanceUID>``.
    input_name, output_name
        Directories of the input and of the results below it.
    """

    element_dir: Path
    input_name: str
    output_name: str

    @property
    def name(self) -> str:
        """The element directory's name; result files are named after it."""
        return self.element_dir.name

    @property
    def input_dir(self) -> Path:
        """Directory of the input; it need not exist."""
        return self.element_dir / self.input_name

    @property
    def output_dir(self) -> Path:
        """Directory that results are written to; the writers make it."""
        return self.element_dir / self.output_name

    @property
    def series_uid(self) -> str:
        """SeriesInstanceUID: the directory's name as the platform gives it, else read from a header."""
        if _UID.match(self.name):
            return self.name
        return next((header.series_uid for header in self.instances() if header.series_uid), self.name)

    def files(self) -> list[Path]:
        """All files of the input, sorted, hidden ones left out.

        Raises
        ------
        BatchError
            When there is no input directory or no file in it.
        """
        found = sorted(_walk(self.input_dir))
        if not found:
            state = "is empty" if self.input_dir.is_dir() else "does not exist"
            raise BatchError(
                f"Batch element {self.name} has no input: {self.input_dir} {state}; files of one series were expected.",
                f"Check the operator that writes {self.input_name!r}, or name another input: "
                "Batch.open(DIR, input_name=NAME).",
            )
        return found

    def instances(self) -> list[InstanceHeader]:
        """One header row per DICOM file of the input, by file name; files that are no DICOM are left out.

        Raises
        ------
        DicomError
            When no file is a DICOM file.
        """
        from kaapana_nb.data.reader import read_headers

        files = self.files()
        headers = read_headers(files)
        if not headers:
            raise DicomError(
                f"Batch element {self.name} has no DICOM file among the {len(files)} in {self.input_dir}.",
                "Name the input that holds DICOM: Batch.open(DIR, input_name=NAME), or see what is wrong with each "
                "file: kaapana-nb batch check DIR",
            )
        return headers

    def volume(self) -> SeriesVolume:
        """The input as a `SeriesVolume`: an image file of an earlier operator if there is one, else DICOM.

        A DICOM volume holds stored values, with slope and intercept beside them.
        """
        from kaapana_nb.data.series import read_series
        from kaapana_nb.data.volume import SeriesVolume

        if self._image_file() is not None:
            return SeriesVolume.from_image(self.image())
        return read_series(self.instances())

    def image(self) -> sitk.Image:
        """The input as a SimpleITK image, in HU for CT; an image file of an earlier operator if there is one.

        Raises
        ------
        BatchError
            When there is more than one image file, or it cannot be read.
        """
        path = self._image_file()
        if path is None:
            return self.volume().to_image()
        import SimpleITK as sitk

        try:
            return sitk.ReadImage(str(path))
        except RuntimeError as error:
            raise BatchError(
                f"Batch element {self.name}: {path.name} cannot be read as an image.",
                f"Run the operator that writes {self.input_name!r} again.",
            ) from error

    def _image_file(self) -> Path | None:
        images = [path for path in self.files() if path.name.lower().endswith(IMAGE_SUFFIXES)]
        if len(images) > 1:
            raise BatchError(
                f"Batch element {self.name} has {len(images)} image files in {self.input_dir}; one was expected.",
                "Take the element itself as the algorithm's first parameter (BatchElement) and read the file you mean.",
            )
        return images[0] if images else None


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
    """

    run_dir: Path
    batch_dir: Path
    elements: tuple[BatchElement, ...]
    input_name: str
    output_name: str
    context: RunContext | None = None

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], *, input_name: str | None = None, output_name: str | None = None
    ) -> Batch:
        """Open the batch of a run directory, or a batch directory itself.

        Parameters
        ----------
        input_name
            Directory of the input below each element; default: the one that the elements have.
        output_name
            Directory of the results below each element.

        Raises
        ------
        BatchError
            When there is no batch, no element in it, or no clear input.
        """
        directory = Path(path).absolute()
        if (directory / BATCH_NAME).is_dir():
            run_dir, batch_dir = directory, directory / BATCH_NAME
        elif directory.name == BATCH_NAME and directory.is_dir():
            run_dir, batch_dir = directory.parent, directory
        else:
            state = "has no batch directory" if directory.is_dir() else "does not exist"
            raise BatchError(
                f"{directory} {state}; <run>/batch/<SeriesInstanceUID>/<operator>/ was expected.",
                "Name the run's directory, the one that holds `batch`.",
            )
        return cls._of(run_dir, batch_dir, input_name, output_name or DEFAULT_OUTPUT, None)

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
        elements = tuple(replace(element, input_name=name) for element in self.elements)
        return replace(self, input_name=name, elements=elements)

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
        rows = "".join(_html_row(number, element) for number, element in enumerate(self.elements))
        head = "".join(f"<th>{title}</th>" for title in ("", "series", "files", "input"))
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _html_row(number: int, element: BatchElement) -> str:
    files = sum(1 for _ in _walk(element.input_dir))
    cells = (str(number), element.name, str(files), element.input_name)
    return f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>"


def _has_uid(element: BatchElement, uid: str) -> bool:
    try:
        return element.series_uid == uid
    except BatchError:
        return False


def _directories(directory: Path) -> list[str]:
    with os.scandir(directory) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _walk(directory: Path) -> Iterator[Path]:
    """Files below a directory; hidden entries and links to directories are left out."""
    stack = [directory]
    while stack:
        try:
            entries = list(os.scandir(stack.pop()))
        except OSError:
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                stack.append(Path(entry.path))
            elif entry.is_file():
                yield Path(entry.path)


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
        "Name the input: Batch.open(DIR, input_name=NAME).",
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
