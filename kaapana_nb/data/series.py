"""Reading a DICOM series: as a volume, a range of its slices, or a small preview."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kaapana_nb.data.frames import Frame, Span, encapsulated_spans, frames_of
from kaapana_nb.data.geometry import Stack, split_geometry, stack_of
from kaapana_nb.data.pixels import MAX_VOLUME_BYTES, frame_array_shape, frame_dtype, is_straight, read_frame_into
from kaapana_nb.data.progress import Job
from kaapana_nb.data.syntaxes import CODECS
from kaapana_nb.data.verdicts import check_series, check_stack, is_image, without_localizers
from kaapana_nb.data.volume import SeriesVolume
from kaapana_nb.errors import DicomError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kaapana_nb.data.header import InstanceHeader

_READ_THREADS = 4  # more gain nothing from the page cache, and little from a disk
_FEW_FRAMES = 4
_FRAMES_AT_ONCE = 8  # handing a task to a thread takes about as long as reading a fifth of a slice


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesSource:
    """A series whose pixels have not been read yet.

    Attributes
    ----------
    frames
        One per slice, by increasing position along the normal.
    stack
        Where they lie.
    dtype
        Element type that holds every slice's stored values.
    """

    frames: tuple[Frame, ...]
    stack: Stack
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """(slices, rows, columns), or (slices, rows, columns, samples) for colour."""
        return (len(self.frames), *frame_array_shape(self.frames[0].header))

    def read(self, start: int = 0, stop: int | None = None, step: int = 1, *, job: Job | None = None) -> SeriesVolume:
        """Read slices ``start:stop:step`` as a volume, and nothing else of the series.

        Stored values with slope and intercept beside them; real values as float32 where slices have
        different slopes (PET). The origin is that of the first slice read.

        Raises
        ------
        DicomError
            When a slice is truncated, damaged or too large.
        """
        return self._read(range(*slice(start, stop, step).indices(len(self.frames))), 1, job)

    def preview(self, size: int = 128, *, job: Job | None = None) -> SeriesVolume:
        """A small copy: every n-th slice, row and column, so that no axis is longer than `size`."""
        slices, rows, columns = self.shape[:3]
        step = max(1, -(-slices // size))
        return self._read(range(0, slices, step), max(1, -(-max(rows, columns) // size)), job)

    def _read(self, wanted: range, thin: int, job: Job | None) -> SeriesVolume:
        if len(wanted) == 0 or wanted.step < 1:
            raise DicomError(
                f"Slices {wanted.start} to {wanted.stop} in steps of {wanted.step} are none of the "
                f"{len(self.frames)} of the series.",
                f"Choose a range within 0 to {len(self.frames)}.",
            )
        frames = [self.frames[index] for index in wanted]
        scales = {_scale(frame.header) for frame in frames}
        slope, intercept = scales.pop() if len(scales) == 1 else (1.0, 0.0)
        rescale = bool(scales)
        dtype = np.dtype(np.float32) if rescale else self.dtype
        shape = frame_array_shape(frames[0].header)
        thinned = (-(-shape[0] // thin), -(-shape[1] // thin), *shape[2:])
        array = _allocate((len(frames), *thinned), dtype)
        spans = _spans(frames)

        def read_one(index: int) -> None:
            frame = frames[index]
            own = frame_dtype(frame.header)
            if not rescale and thin == 1 and own == dtype:
                read_frame_into(frame, array[index], spans.get(frame.header.file_name))
                return
            plane: NDArray[Any] = np.empty(shape, own)
            read_frame_into(frame, plane, spans.get(frame.header.file_name))
            plane = plane[::thin, ::thin]
            if rescale:
                own_slope, own_intercept = _scale(frame.header)
                array[index] = plane * np.float64(own_slope) + np.float64(own_intercept)
            else:
                array[index] = plane

        _for_each(read_one, frames, job or Job())
        x, y, depth = self.stack.spacing_mm
        first = self.stack.origin
        if wanted.start and self.stack.placed:
            place = frames[0].header.image_position or first
            first = (place[0], place[1], place[2])
        tilt = self.stack.tilt_mm
        return SeriesVolume(
            array=array,
            spacing=(x * thin, y * thin, depth * wanted.step),
            origin=first,
            direction=self.stack.direction,
            slope=slope,
            intercept=intercept,
            tilt_mm=(tilt[0] * wanted.step, tilt[1] * wanted.step),
        )


def open_series(headers: Sequence[InstanceHeader]) -> SeriesSource:
    """Check that the instances make one volume, and order them.

    Localizers among other images and second copies of an instance are left out, as ``batch check`` reports.

    Raises
    ------
    DicomError
        When they make no volume: the first error that ``batch check`` would report.
    """
    findings = check_series(headers)
    for problem in findings.problems:
        if problem.severity == "error":
            where = f"{problem.file_name}: " if problem.file_name else ""
            raise DicomError(where + problem.problem, problem.remedy)
    seen: set[str] = set()
    images = []
    for header in headers:
        if is_image(header) and header.sop_instance_uid not in seen:
            images.append(header)
            seen.add(header.sop_instance_uid or "")
    if not images:
        raise DicomError(
            f"None of the {len(headers)} instances is an image to make a volume of.",
            "Take list[pydicom.Dataset] as the algorithm's first parameter.",
        )
    frames = frames_of(without_localizers(images))
    stack = findings.stack
    if stack is None or len(frames) > len(images) or len(stack.order) != len(frames):
        stack = _stack_of_frames(frames)
    ordered = tuple(frames[index] for index in stack.order)
    return SeriesSource(
        frames=ordered, stack=stack, dtype=np.result_type(*{frame_dtype(frame.header) for frame in ordered})
    )


def read_series(headers: Sequence[InstanceHeader], *, job: Job | None = None) -> SeriesVolume:
    """The volume of a series, slices by increasing position along the normal (see `open_series`)."""
    return open_series(headers).read(job=job)


def _stack_of_frames(frames: list[Frame]) -> Stack:
    headers = [frame.header for frame in frames]
    groups = split_geometry(headers)
    if len(groups) > 1:
        raise DicomError(
            f"{headers[0].file_name} holds frames of {len(groups)} different sizes, spacings or orientations.",
            "Take list[pydicom.Dataset] as the algorithm's first parameter and choose the frames.",
        )
    stack = stack_of(headers)
    for problem in check_stack(headers, stack):
        if problem.severity == "error":
            raise DicomError(f"{headers[0].file_name}: {problem.problem}", problem.remedy)
    return stack


def _scale(header: InstanceHeader) -> tuple[float, float]:
    slope = header.rescale_slope
    return (1.0 if slope is None or slope == 0 else slope, header.rescale_intercept or 0.0)


def _allocate(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    try:
        if size > MAX_VOLUME_BYTES:
            raise MemoryError
        return np.empty(shape, dtype)
    except MemoryError:
        raise DicomError(
            f"A volume of {size >> 20} MiB does not fit into memory.",
            "Read a range of slices, open_series(headers).read(start, stop), or a preview.",
        ) from None


def _spans(frames: list[Frame]) -> dict[str, list[list[Span]]]:
    """Where the compressed frames of multi-frame files lie, by file."""
    spans: dict[str, list[list[Span]]] = {}
    for frame in frames:
        header = frame.header
        native = CODECS.get(header.transfer_syntax_uid or "", "native") == "native"
        if native or frame.of == 1 or header.file_name in spans:
            continue
        fd = os.open(header.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            spans[header.file_name] = encapsulated_spans(fd, header, frame.of)
        finally:
            os.close(fd)
    return spans


def _for_each(read_one: Callable[[int], None], frames: list[Frame], job: Job) -> None:
    """Read every frame, in threads where that helps: reads wait for the disk, codecs hold no lock."""
    count = len(frames)
    straight = is_straight(frames[0].header)
    threads = _READ_THREADS if straight else len(os.sched_getaffinity(0))
    at_once = min(_FRAMES_AT_ONCE, count // threads) if straight else 1

    def read_some(start: int) -> None:
        for index in range(start, min(start + at_once, count)):
            read_one(index)

    if count < _FEW_FRAMES or threads == 1:
        for index in range(count):
            job.step(index, count, "reading slices")
            read_one(index)
    else:
        with ThreadPoolExecutor(threads) as pool:
            done: Iterator[None] = pool.map(read_some, range(0, count, at_once))
            try:
                for number, _ in enumerate(done):
                    job.step(number * at_once, count, "reading slices")
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    job.step(count, count, "reading slices")
