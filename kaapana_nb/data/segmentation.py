"""Masks as DICOM segmentation objects (PS3.3 A.51), by highdicom (the extra ``seg``)."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from kaapana_nb import __version__
from kaapana_nb.data.progress import Job
from kaapana_nb.data.series import SeriesSource
from kaapana_nb.data.volume import SeriesVolume
from kaapana_nb.errors import BatchError, DicomError, UsageError
from kaapana_nb.files import atomic_file

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom import Dataset

SERIES_NUMBER = 300
"""SeriesNumber that the platform's own converter gives segmentations."""
GEOMETRY_TOLERANCE_MM = 0.01
"""A mask lies on its series when no corner is further off: formats in between round to 32-bit numbers."""
_MAX_SEGMENTS = 255
_MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
"""Type 2 attributes (PS3.3 C.7.1.1 and C.7.2.1): de-identified series often lack them; highdicom wants them there."""
_MANUFACTURER = "kaapana-nb"
_EXTRA = "Install the extra: pip install 'kaapana-nb[seg]'"

Encoding = Literal["BINARY", "LABELMAP"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One label of a mask.

    Attributes
    ----------
    number
        Value in the mask, 1 to 255.
    label
        SegmentLabel, e.g. ``liver`` or ``left lung``.
    code
        SNOMED CT code value and meaning of the anatomy; looked up by the label's words when ``None``.
    """

    number: int
    label: str
    code: tuple[str, str] | None = None


def write_segmentation(
    mask: SeriesVolume,
    source: SeriesSource,
    segments: Sequence[Segment],
    path: Path,
    *,
    description: str,
    encoding: Encoding = "BINARY",
    job: Job | None = None,
) -> Dataset:
    """Write a mask of a series as one DICOM SEG file, and return it.

    Parameters
    ----------
    mask
        Label numbers on the voxels of the series, 0 for background.
    source
        The series that was segmented: patient, study and frame of reference come from its headers.
    description
        SeriesDescription.
    encoding
        BINARY, one bit per voxel and segment, which every receiver knows; or LABELMAP (supplement 243).

    Raises
    ------
    BatchError
        When the mask does not lie on the series, or has labels that are not described.
    DicomError
        When the series' headers are not enough for a segmentation.
    UsageError
        When highdicom is not installed.
    """
    job = job or Job()
    job.step(0, 3, "writing a segmentation")
    labels = _checked_labels(mask, source, segments)
    headers = [_source_header(frame.header.path) for frame in source.frames]
    job.step(1, 3, "writing a segmentation")
    dataset = _build(labels, headers, segments, description, encoding)
    job.step(2, 3, "writing a segmentation")
    with atomic_file(path) as file:
        dataset.save_as(file, enforce_file_format=True)
    job.step(3, 3, "writing a segmentation")
    return dataset


def anatomy_code(label: str) -> tuple[str, str]:
    """SNOMED CT code value and meaning for a label's words, ``Tissue`` where there is none.

    ``left lung`` and ``left@lung`` are looked up as ``lung``: the side stays in the label.
    """
    from pydicom.sr.codedict import codes

    words = [word for word in re.findall(r"[A-Za-z0-9]+", label) if word.lower() not in ("left", "right")]
    name = "".join(word[:1].upper() + word[1:] for word in words)
    code = getattr(codes.SCT, name, None) if name else None
    code = codes.SCT.Tissue if code is None else code
    return str(code.value), str(code.meaning)


def _highdicom() -> Any:
    try:
        import highdicom
        import highdicom.seg
    except ImportError as error:
        raise UsageError("Segmentations need the package highdicom, which is not installed.", _EXTRA) from error
    return highdicom


def _checked_labels(mask: SeriesVolume, source: SeriesSource, segments: Sequence[Segment]) -> NDArray[np.uint8]:
    """The mask as labels 1 to n in the order of the segments."""
    numbers = [segment.number for segment in segments]
    if not numbers or len(set(numbers)) < len(numbers) or not all(0 < number <= _MAX_SEGMENTS for number in numbers):
        raise BatchError(
            f"The segments have the numbers {numbers}; different ones from 1 to {_MAX_SEGMENTS} were expected.",
            "Describe each label of the mask once: Segment(number=1, label='liver').",
        )
    problem = _difference(mask, source)
    if problem:
        raise BatchError(
            f"The mask does not lie on the series: {problem}.",
            "Resample it onto the series: "
            "sitk.Resample(mask, element.image(), sitk.Transform(), sitk.sitkNearestNeighbor).",
        )
    table = np.zeros(_MAX_SEGMENTS + 1, np.uint8)
    for position, number in enumerate(numbers):
        table[number] = position + 1
    labels = np.empty(mask.shape, np.uint8)
    known = {0, *numbers}
    for index, plane in enumerate(mask.array):
        whole = plane.astype(np.uint8)
        present = set(np.flatnonzero(np.bincount(whole.ravel(), minlength=_MAX_SEGMENTS + 1)).tolist())
        if not present <= known or not np.array_equal(whole, plane):
            strange = sorted(set(np.unique(plane).tolist()) - known)
            raise BatchError(
                f"The mask has the labels {strange[:10]}, which no segment describes; described: {sorted(numbers)}.",
                "Describe each label of the mask: Segment(number=1, label='liver').",
            )
        labels[index] = table[whole]
    return labels


def _difference(mask: SeriesVolume, source: SeriesSource) -> str:
    """How the mask's grid differs from the series', in words; empty where it does not."""
    if mask.shape != source.shape:
        return f"its shape is {mask.shape}, the series' is {source.shape}"
    like = empty_like(source)
    corners = np.array([(x, y, z) for z in (0, 1) for y in (0, 1) for x in (0, 1)]) * (np.array(mask.shape[::-1]) - 1)
    away = np.abs(places_of(mask, corners) - places_of(like, corners)).max()
    return f"a corner lies {away:.3g} mm off" if away > GEOMETRY_TOLERANCE_MM else ""


def places_of(volume: SeriesVolume, indices: NDArray[Any]) -> NDArray[Any]:
    """LPS positions of (column, row, slice) indices."""
    matrix = np.array(volume.direction).reshape(3, 3) * np.array(volume.spacing)
    places: NDArray[Any] = np.asarray(volume.origin) + indices @ matrix.T
    return places


def empty_like(source: SeriesSource) -> SeriesVolume:
    """A volume of zeros on the grid of a series, which takes no memory."""
    stack = source.stack
    empty = np.broadcast_to(np.uint8(0), source.shape)
    return SeriesVolume(array=empty, spacing=stack.spacing_mm, origin=stack.origin, direction=stack.direction)


def _source_header(path: Path) -> Dataset:
    import pydicom

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True)
            dataset.decode()
            for keyword in _MAY_BE_EMPTY:
                if keyword not in dataset:
                    setattr(dataset, keyword, None)
            dataset.SpecificCharacterSet = "ISO_IR 192"  # holds what any of them held; highdicom refuses some
            return dataset
    except Exception as error:
        raise DicomError(f"The header of {path.name} cannot be read.", "Fetch the series again.") from error


def _build(
    labels: NDArray[np.uint8],
    headers: list[Dataset],
    segments: Sequence[Segment],
    description: str,
    encoding: Encoding,
) -> Dataset:
    hd = _highdicom()
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    digest = hashlib.blake2b(np.ascontiguousarray(labels).data, digest_size=16).hexdigest()
    sources = [str(headers[0].get("SeriesInstanceUID")), digest, description, encoding, repr(list(segments))]
    algorithm = hd.AlgorithmIdentificationSequence(
        name=description[:64] or _MANUFACTURER, version=__version__, family=codes.DCM.ArtificialIntelligence
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset: Dataset = hd.seg.Segmentation(
                source_images=headers,
                pixel_array=labels,
                segmentation_type=encoding,
                segment_descriptions=[
                    _description(hd, position + 1, segment, algorithm) for position, segment in enumerate(segments)
                ],
                series_instance_uid=generate_uid(entropy_srcs=[*sources, "series"]),
                series_number=SERIES_NUMBER,
                sop_instance_uid=generate_uid(entropy_srcs=[*sources, "instance"]),
                instance_number=1,
                manufacturer=_MANUFACTURER,
                manufacturer_model_name=_MANUFACTURER,
                software_versions=__version__,
                device_serial_number="0",
                content_description=description[:64],
                content_label="SEGMENTATION",
                series_description=description[:64],
            )
    except Exception as error:
        raise DicomError(
            f"No segmentation can be made of this mask and series ({type(error).__name__}).",
            "See what is wrong with the series: kaapana-nb batch check DIR",
        ) from error
    return dataset


def _description(hd: Any, number: int, segment: Segment, algorithm: Any) -> Any:
    from pydicom.sr.codedict import codes

    value, meaning = segment.code or anatomy_code(segment.label)
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=segment.label[:64],
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=hd.sr.CodedConcept(value, "SCT", meaning[:64]),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
    )
