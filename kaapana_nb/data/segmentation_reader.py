"""DICOM segmentation objects (PS3.3 A.51) as masks; needs no more than pydicom."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kaapana_nb.data.frames import frames_of
from kaapana_nb.data.geometry import Stack, orthonormal, stack_of
from kaapana_nb.data.header import InstanceHeader
from kaapana_nb.data.pixels import frame_array_shape
from kaapana_nb.data.progress import Job
from kaapana_nb.data.reader import read_header
from kaapana_nb.data.segmentation import GEOMETRY_TOLERANCE_MM, Segment
from kaapana_nb.data.volume import SeriesVolume
from kaapana_nb.errors import DicomError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom import Dataset

    from kaapana_nb.data.series import SeriesSource

SEGMENTATION_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""Segmentation Storage and Label Map Segmentation Storage."""
_SLICE_PART = 0.25
"""A frame belongs to the slice that is nearer than this part of the slices' distance."""
_MAX_FRAMES = 100_000


def read_segmentation(
    path: Path, *, like: SeriesSource | None = None, job: Job | None = None
) -> tuple[SeriesVolume, tuple[Segment, ...]]:
    """The mask of a DICOM SEG file (uint8 label numbers), and what its labels mean.

    Parameters
    ----------
    like
        The segmented series: the mask then has its slices, those without any segment included.
        Otherwise it reaches from the first to the last slice that the file holds.

    Raises
    ------
    DicomError
        When the file is no BINARY or LABELMAP segmentation, its segments overlap, or it does not lie on `like`.
    """
    header = read_header(path)
    if not isinstance(header, InstanceHeader) or header.sop_class_uid not in SEGMENTATION_CLASSES:
        seen = header.sop_class_uid if isinstance(header, InstanceHeader) else header.problem
        raise DicomError(f"{path.name} is no segmentation: {seen}", "Name a DICOM SEG file.")
    count = 1 if header.number_of_frames is None else header.number_of_frames
    if not 0 < count <= _MAX_FRAMES:
        raise DicomError(f"{path.name} has {count} frames.", "Fetch the file again.")
    places = [frame.header for frame in frames_of([header])] if count > 1 else [_only_frame(header)]
    dataset = _read(path)
    segments, kind = _segments(dataset, path)
    numbers = _frame_segments(dataset, count, path) if kind == "BINARY" else [0] * count
    stack, slices = _grid(places, path) if like is None else (like.stack, _slices_of(places, like, path))
    shape = (max(slices) + 1 if like is None else like.shape[0], *frame_array_shape(places[0])[:2])
    mask = _paint(dataset, shape, slices, numbers, path, job or Job())
    return (
        SeriesVolume(array=mask, spacing=stack.spacing_mm, origin=stack.origin, direction=stack.direction),
        segments,
    )


def _only_frame(header: InstanceHeader) -> InstanceHeader:
    """The geometry of an object of one frame, which lies in its functional groups all the same."""
    return frames_of([header], always_grouped=True)[0].header


def _read(path: Path) -> Dataset:
    import pydicom

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pydicom.dcmread(path)
    except Exception as error:
        raise DicomError(f"{path.name} cannot be read ({type(error).__name__}).", "Fetch the file again.") from error


def _segments(dataset: Dataset, path: Path) -> tuple[tuple[Segment, ...], str]:
    try:
        kind = str(dataset.SegmentationType)
        found = tuple(_segment(item) for item in dataset.SegmentSequence)
    except Exception as error:
        raise DicomError(
            f"{path.name} does not describe its segments ({type(error).__name__}).", "Fetch the file again."
        ) from error
    if kind not in ("BINARY", "LABELMAP") or any(not 0 <= segment.number <= 255 for segment in found):
        raise DicomError(
            f"{path.name} has SegmentationType {kind!r} and segment numbers up to "
            f"{max((segment.number for segment in found), default=0)}; BINARY or LABELMAP up to 255 was expected.",
            "Read it with highdicom.",
        )
    return tuple(segment for segment in found if segment.number > 0), kind


def _segment(item: Dataset) -> Segment:
    code = item.SegmentedPropertyTypeCodeSequence[0]
    return Segment(
        number=int(item.SegmentNumber),
        label=str(item.get("SegmentLabel", "")),
        code=(str(code.get("CodeValue", "")), str(code.get("CodeMeaning", ""))),
    )


def _frame_segments(dataset: Dataset, count: int, path: Path) -> list[int]:
    """The segment that each frame of a BINARY segmentation is of."""

    def number(item: Dataset) -> int | None:
        group = item.get("SegmentIdentificationSequence")
        return int(group[0].ReferencedSegmentNumber) if group else None

    try:
        shared = dataset.get("SharedFunctionalGroupsSequence")
        common = number(shared[0]) if shared else None
        numbers = [number(item) or common for item in dataset.PerFrameFunctionalGroupsSequence]
    except Exception as error:
        raise DicomError(
            f"The frames of {path.name} cannot be told apart ({type(error).__name__}).", "Fetch the file again."
        ) from error
    good = [value for value in numbers if value is not None and 0 < value <= 255]
    if len(good) != count or len(numbers) != count:
        raise DicomError(f"{path.name} does not say of which segment each frame is.", "Fetch the file again.")
    return good


def _grid(places: Sequence[InstanceHeader], path: Path) -> tuple[Stack, list[int]]:
    """The smallest grid that holds all frames, and the slice of each."""
    distinct = {header.image_position: header for header in places}
    headers = list(distinct.values())
    stack = stack_of(headers)
    if not stack.placed or stack.uneven_mm or stack.repeated:
        raise DicomError(
            f"The frames of {path.name} do not lie on one grid.",
            "Read it with the series that was segmented: read_segmentation(path, like=element.source()).",
        )
    missing = dict(stack.gaps)
    slice_of: dict[Any, int] = {}
    at = 0
    for rank, index in enumerate(stack.order):
        slice_of[headers[index].image_position] = at
        at += 1 + missing.get(rank, 0)
    return stack, [slice_of[header.image_position] for header in places]


def _slices_of(places: Sequence[InstanceHeader], like: SeriesSource, path: Path) -> list[int]:
    """The slice of the series that each frame lies on."""
    axes = orthonormal(places[0].image_orientation)
    matrix = np.array(like.stack.direction).reshape(3, 3)
    same_axes = axes is not None and np.allclose(np.array(axes[:2]), matrix[:, :2].T, atol=1e-3)
    if not same_axes or frame_array_shape(places[0]) != like.shape[1:3] or not like.stack.placed:
        raise _elsewhere(path)
    positions = np.array([header.image_position or (np.nan,) * 3 for header in places], float)
    targets = np.array([frame.header.image_position for frame in like.frames], float)
    depths = targets @ matrix[:, 2]
    slices = []
    for position in positions:
        nearest = int(np.abs(depths - position @ matrix[:, 2]).argmin())
        away = matrix.T @ (position - targets[nearest])
        if not (
            np.abs(away[:2]).max() <= GEOMETRY_TOLERANCE_MM and abs(away[2]) <= _SLICE_PART * like.stack.spacing_mm[2]
        ):
            raise _elsewhere(path)
        slices.append(nearest)
    return slices


def _elsewhere(path: Path) -> DicomError:
    return DicomError(
        f"{path.name} does not lie on the slices of the series.", "Read it without the series: read_segmentation(path)."
    )


def _paint(
    dataset: Dataset, shape: tuple[int, ...], slices: list[int], numbers: list[int], path: Path, job: Job
) -> NDArray[np.uint8]:
    """Put the frames into one array, one frame in memory at a time."""
    from pydicom.pixels.utils import iter_pixels

    mask = np.zeros(shape, np.uint8)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for done, (frame, index, number) in enumerate(zip(iter_pixels(dataset), slices, numbers, strict=True)):
                job.step(done, len(slices), "reading a segmentation")
                plane = frame.astype(np.uint8) * np.uint8(number or 1)
                taken = mask[index]
                if np.any((taken != 0) & (plane != 0) & (taken != plane)):
                    raise DicomError(
                        f"The segments of {path.name} overlap, which one mask cannot hold.", "Read it with highdicom."
                    )
                np.maximum(taken, plane, out=taken)
    except DicomError:
        raise
    except Exception as error:
        raise DicomError(
            f"The pixels of {path.name} cannot be read ({type(error).__name__}).", "Fetch the file again."
        ) from error
    return mask
