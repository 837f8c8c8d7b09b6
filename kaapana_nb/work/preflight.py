"""What can be known of a batch before a kernel is started: elements whose input cannot be read."""

from __future__ import annotations

from collections.abc import Iterator

from kaapana_nb.data.batch import Batch, BatchElement
from kaapana_nb.data.scan import IMAGE_SUFFIXES
from kaapana_nb.errors import BatchError, KaapanaNbError

_DICOM_INPUTS = ("Image", "SeriesVolume", "Dataset")
"""Input types of which a file that is no image of an earlier operator must be DICOM."""


def unusable_elements(batch: Batch, input_type: str) -> Iterator[tuple[str, KaapanaNbError]]:
    """Name and error of each element that has no input, or no DICOM where the algorithm's type asks for it.

    Looks at one file of a sound element, so it is fast on any batch.
    """
    for element in batch:
        try:
            _check(element, input_type)
        except KaapanaNbError as error:
            yield element.name, error


def check_batch(batch: Batch, input_type: str) -> list[tuple[str, KaapanaNbError]]:
    """The unusable elements; the others will be worked on.

    Raises
    ------
    BatchError
        When there is no usable element: nothing could come of a run.
    """
    unusable = list(unusable_elements(batch, input_type))
    if len(unusable) == len(batch):
        first = unusable[0][1]
        rest = f" (and so it is with the {len(batch) - 1} others)" if len(batch) > 1 else ""
        raise BatchError(f"{first.problem}{rest}", first.remedy) from first
    return unusable


def _check(element: BatchElement, input_type: str) -> None:
    from kaapana_nb.data.reader import Unreadable, read_header

    files = element.files()
    if not input_type.rstrip("]'\"").endswith(_DICOM_INPUTS):
        return
    if any(path.name.lower().endswith(IMAGE_SUFFIXES) for path in files):
        return
    if isinstance(read_header(files[0]), Unreadable):
        element.instances()  # raises when no other file is DICOM either
