"""Masks on their way to a DICOM SEG: checked against their series here, where an error can still be mended."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from kaapana_nb.data.batch import Batch, BatchElement
from kaapana_nb.data.segmentation import Segment, anatomy_code, write_segmentation
from kaapana_nb.data.segmentation_reader import read_segmentation
from kaapana_nb.data.volume import SeriesVolume
from kaapana_nb.errors import BatchError, KaapanaNbError

_NO_CODE = "Tissue"
"""What `anatomy_code` gives for words that name no anatomy."""


def is_known_anatomy(term: str) -> bool:
    """Whether a term (``organ``, ``side organ`` or ``side@organ``) has a code of its own."""
    return anatomy_code(term)[1] != _NO_CODE or term.lower() == _NO_CODE.lower()


def preview_segmentation(element: BatchElement, anatomy: str, *, input_name: str) -> SeriesVolume:
    """The mask as a receiver of the DICOM SEG would see it: written as one, and read back onto its series.

    Parameters
    ----------
    element
        An element whose own results (``output_dir``) hold the mask.
    input_name
        Directory of the series' DICOM files.

    Raises
    ------
    BatchError
        When the mask is missing or empty, does not lie on the series, or has other labels than 0 and 1.
    """
    import SimpleITK as sitk

    source = replace(element, input_name=input_name).source()
    path = element.output_dir / f"{element.name}.nrrd"
    if not path.is_file():
        raise BatchError(f"{element.name} has no mask {path.name}.", "Run the algorithm on it first.")
    mask = SeriesVolume.from_image(sitk.ReadImage(str(path)))
    if not np.any(mask.array):
        raise BatchError(
            f"The mask of {element.name} is empty: a segmentation without a segment is refused by the converter.",
            "Look at the series; an element without a finding may be left out by returning None.",
        )
    with tempfile.TemporaryDirectory(prefix="knb-seg-") as name:
        target = Path(name) / "mask.dcm"
        write_segmentation(mask, source, [Segment(number=1, label=anatomy)], target, description=element.output_name)
        return read_segmentation(target, like=source)[0]


def mask_problems(batch: Batch, anatomy: str, *, input_name: str) -> Iterator[tuple[str, KaapanaNbError]]:
    """Element and error of each mask that would not become a DICOM SEG; elements without a mask are left out."""
    for element in batch:
        if (element.output_dir / f"{element.name}.nrrd").is_file():
            try:
                preview_segmentation(element, anatomy, input_name=input_name)
            except KaapanaNbError as error:
                yield element.name, error
