"""`BatchElement`: one series of a batch, where it lies and how it is read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kaapana_nb.data.scan import IMAGE_SUFFIXES, FileEntry, is_hidden, scan_files
from kaapana_nb.errors import BatchError, DicomError

if TYPE_CHECKING:
    import SimpleITK as sitk

    from kaapana_nb.data.header import InstanceHeader
    from kaapana_nb.data.series import SeriesSource
    from kaapana_nb.data.volume import SeriesVolume

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
    source_dir, members
        For a series out of a directory that is no workflow run: that directory and the series' files,
        relative to it; ``None`` otherwise.
    """

    element_dir: Path
    input_name: str
    output_name: str
    source_dir: Path | None = None
    members: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        """The element directory's name; result files are named after it."""
        return self.element_dir.name

    @property
    def input_dir(self) -> Path:
        """Directory of the input; it need not exist, and may hold other series where `members` says so."""
        return self.element_dir / self.input_name if self.source_dir is None else self.source_dir

    @property
    def output_dir(self) -> Path:
        """Directory that results are written to; the writers make it."""
        return self.element_dir / self.output_name

    @property
    def series_uid(self) -> str:
        """SeriesInstanceUID: the directory's name as the platform gives it, else read from a header."""
        if is_uid(self.name):
            return self.name
        return next((header.series_uid for header in self.instances() if header.series_uid), self.name)

    def files(self) -> list[Path]:
        """All files of the input, sorted, hidden ones left out.

        Raises
        ------
        BatchError
            When there is no input directory or no file in it.
        """
        return [self.input_dir / entry.name for entry in self._entries()]

    def _entries(self) -> list[FileEntry]:
        if self.members is not None:
            return [FileEntry(name, 0, 0, 0) for name in self.members]
        found = [entry for entry in scan_files(self.input_dir) if not is_hidden(entry.name)]
        if not found:
            state = "is empty" if self.input_dir.is_dir() else "does not exist"
            raise BatchError(
                f"Batch element {self.name} has no input: {self.input_dir} {state}; files of one series were expected.",
                f"Check the operator that writes {self.input_name!r}, or name another input: "
                "--in NAME, in Python Batch.open(DIR, input_name=NAME).",
            )
        return found

    def instances(self) -> list[InstanceHeader]:
        """One header row per DICOM file of the input, by file name; files that are no DICOM are left out.

        Raises
        ------
        DicomError
            When no file is a DICOM file.
        """
        from kaapana_nb.data.header import InstanceHeader
        from kaapana_nb.data.reader import HeaderReader

        entries = self._entries()
        found = HeaderReader().read(self.input_dir, entries)
        headers = [result for result in found if isinstance(result, InstanceHeader)]
        if not headers:
            raise DicomError(
                f"Batch element {self.name} has no DICOM file among the {len(entries)} in {self.input_dir}.",
                "Name the input that holds DICOM: --in NAME, in Python Batch.open(DIR, input_name=NAME); or see what "
                "is wrong with each file: kaapana-nb batch check DIR",
            )
        return headers

    def volume(self) -> SeriesVolume:
        """The input as a `SeriesVolume`: an image file of an earlier operator if there is one, else DICOM.

        A DICOM volume holds stored values, with slope and intercept beside them.
        """
        from kaapana_nb.data.volume import SeriesVolume

        if self._image_file() is not None:
            return SeriesVolume.from_image(self.image())
        return self.source().read()

    def source(self) -> SeriesSource:
        """The DICOM series with no pixel read yet: for a range of slices or a preview."""
        from kaapana_nb.data.series import open_series

        return open_series(self.instances())

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


def is_uid(text: str) -> bool:
    """Whether `text` is a DICOM UID (PS3.5 section 9.1), which is also a safe directory name."""
    return len(text) <= 64 and _UID.match(text) is not None
