"""DICOM series to NRRD or NIfTI, as the platform's converter does it, a few slices at a time."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from kaapana_nb.data.nifti import nifti_header
from kaapana_nb.data.nrrd import VoxelStream, nrrd_header
from kaapana_nb.data.pixels import frame_dtype
from kaapana_nb.data.progress import Job
from kaapana_nb.data.volume import SeriesVolume, smallest_type
from kaapana_nb.errors import DicomError, UsageError
from kaapana_nb.files import atomic_file

if TYPE_CHECKING:
    from kaapana_nb.data.element import BatchElement
    from kaapana_nb.data.series import SeriesSource

Format = Literal["nrrd", "nii", "nii.gz"]
FORMATS: tuple[Format, ...] = ("nrrd", "nii", "nii.gz")
_SLAB_BYTES = 8 << 20


def convert_element(
    element: BatchElement, image_format: Format = "nrrd", *, compress: bool = True, job: Job | None = None
) -> Path:
    """Write an element's DICOM series as ``<output_dir>/<SeriesInstanceUID>.<format>``; returns the file."""
    path = element.output_dir / f"{element.series_uid}.{image_format}"
    convert_series(element.source(), path, image_format, compress=compress, job=job)
    return path


def convert_series(
    source: SeriesSource,
    path: Path,
    image_format: Format = "nrrd",
    *,
    compress: bool = True,
    job: Job | None = None,
) -> None:
    """Write a series in real values (HU in CT) with its exact geometry; `path` appears when it is whole.

    Memory stays at a few slices: where the element type depends on the values that occur, the series is
    read twice. A tilted stack is refused, because neither format can say where its voxels lie.

    Parameters
    ----------
    compress
        For NRRD: as a gzip stream. ``nii`` is never compressed, ``nii.gz`` always.

    Raises
    ------
    UsageError
        When the format is unknown.
    DicomError
        When the series is tilted or cannot be read.
    """
    job = job or Job()
    if image_format not in FORMATS:
        raise UsageError(f"There is no image format {image_format!r}.", f"Choose one of {', '.join(FORMATS)}.")
    if source.stack.tilt_mm != (0.0, 0.0):
        raise DicomError(
            f"The stack is tilted: each slice lies {source.stack.tilt_mm[0]:.3g} and {source.stack.tilt_mm[1]:.3g} mm "
            f"off along columns and rows, which {image_format} cannot say.",
            "Resample it: write_result(element.volume().untilted(), …).",
        )
    dtype = real_type(source, job)
    stack = source.stack
    geometry: dict[str, Any] = {"spacing": stack.spacing_mm, "origin": stack.origin, "direction": stack.direction}
    zipped = image_format == "nii.gz" or (image_format == "nrrd" and compress)
    with atomic_file(path) as file:
        if image_format == "nrrd":
            file.write(nrrd_header(source.shape, dtype, **geometry, vector=len(source.shape) == 4, compress=zipped))
        with VoxelStream(file, compress=zipped) as stream:
            if image_format != "nrrd":
                stream.write_bytes(nifti_header(source.shape, dtype, **geometry))
            for slab in _slabs(source, job, "converting slices"):
                stream.write(slab.rescaled(dtype))


def real_type(source: SeriesSource, job: Job | None = None) -> np.dtype[Any]:
    """Element type of the series' real values, the same as `SeriesVolume.rescaled` gives for the whole volume."""
    scales = {(frame.header.rescale_slope, frame.header.rescale_intercept) for frame in source.frames}
    if len(scales) > 1:
        return np.dtype(np.float32)
    one = source.read(0, 1)
    if one.slope == 1 and one.intercept == 0:
        return source.dtype
    limits = _possible_values(source)
    if limits is not None:
        # the narrowest type that any values could need is the answer whatever the values are
        narrow = smallest_type(one.slope, one.intercept, limits[0], limits[1])
        if narrow == np.int16:
            return np.dtype(np.int16)
    low, high = None, None
    for slab in _slabs(source, job or Job(), "looking for extremes"):
        least, most = slab.array.min(), slab.array.max()
        low = least if low is None else min(low, least)
        high = most if high is None else max(high, most)
    return smallest_type(one.slope, one.intercept, low, high) if low is not None else source.dtype


def _possible_values(source: SeriesSource) -> tuple[int, int] | None:
    """What the stored values could be by BitsStored, the same for every slice."""
    kinds = {(frame_dtype(frame.header).kind, frame.header.bits_stored) for frame in source.frames}
    kind, bits = kinds.pop()
    if kinds or kind not in "iu" or not bits or not 0 < bits <= 64:
        return None
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if kind == "i" else (0, (1 << bits) - 1)


def _slabs(source: SeriesSource, job: Job, what: str) -> Iterator[SeriesVolume]:
    """The series some slices at a time, read ahead by one."""
    slices = source.shape[0]
    per_slab = max(1, _SLAB_BYTES // max(1, int(np.prod(source.shape[1:])) * source.dtype.itemsize))
    starts = range(0, slices, per_slab)
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(source.read, 0, per_slab)
        for start in starts:
            job.step(start, slices, what)
            slab = ahead.result()
            if start + per_slab < slices:
                ahead = pool.submit(source.read, start + per_slab, start + 2 * per_slab)
            yield slab
    job.step(slices, slices, what)
