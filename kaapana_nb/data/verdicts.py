"""What is wrong with the files of a series, each file with its own verdict and remedy."""

from __future__ import annotations

import functools
import operator
import os
from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

from kaapana_nb.data.frames import encapsulated_spans
from kaapana_nb.data.geometry import Stack, split_geometry, stack_of
from kaapana_nb.data.header import InstanceHeader
from kaapana_nb.data.reader import Unreadable
from kaapana_nb.data.scan import IMAGE_SUFFIXES, is_hidden
from kaapana_nb.data.syntaxes import syntax_problem
from kaapana_nb.errors import DicomError

Severity = Literal["error", "warning"]

_KINDS = {
    "1.2.840.10008.5.1.4.1.1.88.": "a structured report",
    "1.2.840.10008.5.1.4.1.1.66.4": "a segmentation (SEG)",
    "1.2.840.10008.5.1.4.1.1.66.7": "a label map segmentation (SEG)",
    "1.2.840.10008.5.1.4.1.1.66.": "a registration, surface or raw data object",
    "1.2.840.10008.5.1.4.1.1.481.2": "a dose grid (RTDOSE)",
    "1.2.840.10008.5.1.4.1.1.481.3": "a structure set (RTSTRUCT)",
    "1.2.840.10008.5.1.4.1.1.481.5": "a treatment plan (RTPLAN)",
    "1.2.840.10008.5.1.4.1.1.481.": "a radiotherapy object",
    "1.2.840.10008.5.1.4.1.1.9.": "a waveform",
    "1.2.840.10008.5.1.4.1.1.11.": "a presentation state",
    "1.2.840.10008.5.1.4.1.1.104.": "an encapsulated document",
}
"""Beginnings of SOP class UIDs (PS3.4 annex B) of what is no image to make a volume of; the longest wins."""


_ALIKE = operator.attrgetter(
    "series_uid", "sop_class_uid", "transfer_syntax_uid", "rows", "columns", "number_of_frames", "samples_per_pixel",
    "bits_allocated", "photometric_interpretation", "pixel_length",
)  # fmt: skip


class Problem(NamedTuple):
    """One thing that is wrong.

    Attributes
    ----------
    file_name
        Relative to the input directory; empty for the series as a whole.
    severity
        ``"error"``: the file or series cannot be made a volume; ``"warning"``: it can, but look at it.
    """

    file_name: str
    problem: str
    remedy: str
    severity: Severity


class Findings(NamedTuple):
    """What a check of a series found: its problems, and the geometry of the slices that would make its volume."""

    problems: list[Problem]
    first: InstanceHeader | None
    """The first slice, or any instance where there is none."""
    stack: Stack | None
    complete: bool | None
    """Whether the slices are all there and belong together; ``None`` where they have no position."""


def check_series(found: Sequence[InstanceHeader | Unreadable]) -> Findings:
    """Every problem of the files of one series: at most one per file, then those of the whole series."""
    headers = [result for result in found if isinstance(result, InstanceHeader)]
    problems: list[Problem] = []
    alike = len(headers) == len(found) and _all_alike(headers)
    images = headers if alike else _check_files(found, headers, problems)
    if not headers and not any(_is_image_file(result.file_name) for result in found):
        problems.append(
            Problem("", "The series has no DICOM file.", "Check the operator that fetches the input.", "error")
        )
    if not images:
        return Findings(problems, headers[0] if headers else None, None, None)
    kept = _without_localizers(images, problems)
    groups = split_geometry(kept)
    stacked = [kept[index] for index in groups[0]]
    for group in groups[1:]:
        problems += [_differing(kept[index], stacked) for index in group]
    stack = stack_of(stacked)
    if len(stacked) > 1:
        problems += check_stack(stacked, stack)
    return Findings(problems, stacked[0], stack, stack.complete and len(groups) == 1 if stack.placed else None)


def _all_alike(headers: list[InstanceHeader]) -> bool:
    """Whether the instances differ in nothing that `_check_file` looks at, and the first is sound: the usual case."""
    if not headers or len(set(map(_ALIKE, headers))) > 1 or headers[0].pixel_length is None:
        return False
    if len({header.sop_instance_uid for header in headers}) < len(headers):
        return False
    length = headers[0].pixel_length
    whole = all((header.pixel_offset or 0) + length <= header.file_size for header in headers)
    return whole and _check_file(headers[0], {}, headers[0].series_uid) is None


def _check_files(
    found: Sequence[InstanceHeader | Unreadable], headers: list[InstanceHeader], problems: list[Problem]
) -> list[InstanceHeader]:
    """Add the problem of each file; returns those that may be slices of a volume."""
    images: list[InstanceHeader] = []
    seen: dict[str, str] = {}
    counts = Counter(header.series_uid for header in headers)
    usual_uid = counts.most_common(1)[0][0] if counts else None
    for result in found:
        problem = _unreadable(result) if isinstance(result, Unreadable) else _check_file(result, seen, usual_uid)
        if problem is not None:
            problems.append(problem)
        if isinstance(result, InstanceHeader) and (problem is None or problem.severity == "warning"):
            first = seen.get(result.sop_instance_uid or "") == result.file_name
            if first and is_image(result):
                images.append(result)
    return images


def is_image(header: InstanceHeader) -> bool:
    """Whether an instance has pixels that are slices of a volume."""
    return bool(header.rows and header.columns and header.bits_allocated) and kind_of(header) is None


def is_localizer(header: InstanceHeader) -> bool:
    """Whether an instance is a localizer (scout), by ImageType value 3 (PS3.3 C.8.2.1.1.1) or elsewhere in it."""
    return "LOCALIZER" in (header.image_type or ())


def kind_of(header: InstanceHeader) -> str | None:
    """What an instance is, in words, where it is no image to make a volume of."""
    kind = _kind_of_class(header.sop_class_uid or "")
    return kind or (None if header.rows and header.columns else "an object without pixels")


@functools.lru_cache(maxsize=256)
def _kind_of_class(uid: str) -> str | None:
    matches = [prefix for prefix in _KINDS if uid == prefix or (prefix.endswith(".") and uid.startswith(prefix))]
    return _KINDS[max(matches, key=len)] if matches else None


def without_localizers(headers: Sequence[InstanceHeader]) -> list[InstanceHeader]:
    """The instances without the localizers among them, unless all are localizers."""
    types = {header.image_type for header in headers}
    if not any("LOCALIZER" in (image_type or ()) for image_type in types):
        return list(headers)
    return [header for header in headers if not is_localizer(header)] or list(headers)


def _is_image_file(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def _unreadable(result: Unreadable) -> Problem | None:
    if _is_image_file(result.file_name) and result.file_size:
        return None  # the image of an earlier operator
    severity: Severity = "warning" if result.harmless or is_hidden(result.file_name) else "error"
    return Problem(result.file_name, result.problem, result.remedy, severity)


def _check_file(header: InstanceHeader, seen: dict[str, str], usual_uid: str | None) -> Problem | None:
    name = header.file_name
    if header.series_uid is None:
        return Problem(name, "The header has no SeriesInstanceUID.", "Fetch the series again.", "warning")
    if header.series_uid != usual_uid:
        return Problem(
            name,
            f"The file belongs to series {header.series_uid}; the others belong to {usual_uid}.",
            "Move it to a directory of its own.",
            "error",
        )
    uid = header.sop_instance_uid or ""
    kind = kind_of(header)
    if kind is not None:
        seen.setdefault(uid, name)
        return Problem(
            name, f"The file is {kind}, not an image.", "Read it with pydicom: list[pydicom.Dataset].", "warning"
        )
    problem = syntax_problem(header.transfer_syntax_uid)
    if problem is not None:
        return Problem(name, *problem, "error")
    damage = _check_pixels(header)
    if damage is not None:
        return damage
    if uid in seen:
        return Problem(name, f"The file has the SOPInstanceUID of {seen[uid]}.", "Delete one of the two.", "warning")
    seen[uid] = name
    return None


def _check_pixels(header: InstanceHeader) -> Problem | None:
    offset, length = header.pixel_offset, header.pixel_length
    if offset is None:
        return None
    if offset >= header.file_size or (length is not None and offset + length > header.file_size):
        there = max(0, header.file_size - offset)
        return Problem(
            header.file_name,
            f"The file is truncated: {there} bytes of pixels where {length or 'some'} were announced.",
            "Fetch the series again.",
            "error",
        )
    if length is None:
        return _check_fragments(header)
    expected = frame_bytes(header) * (header.number_of_frames or 1)
    if expected > length:
        return Problem(
            header.file_name,
            f"PixelData has {length} bytes; Rows, Columns and BitsAllocated ask for {expected}.",
            "Fetch the series again.",
            "error",
        )
    return None


def _check_fragments(header: InstanceHeader) -> Problem | None:
    """Whether the compressed frames are all there, by the heads of their fragments; nothing is decoded."""
    try:
        fd = os.open(header.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        return Problem(
            header.file_name, f"The file cannot be read: {error.strerror}.", "Check its permissions.", "error"
        )
    try:
        encapsulated_spans(fd, header, max(1, header.number_of_frames or 1))
    except DicomError as error:
        return Problem(header.file_name, error.problem, error.remedy, "error")
    finally:
        os.close(fd)
    return None


def frame_bytes(header: InstanceHeader) -> int:
    """Bytes of one uncompressed frame."""
    samples = header.samples_per_pixel or 1
    bits = (header.rows or 0) * (header.columns or 0) * samples * (header.bits_allocated or 0)
    if header.photometric_interpretation == "YBR_FULL_422":
        bits = bits * 2 // 3
    return (bits + 7) // 8


def _without_localizers(headers: list[InstanceHeader], problems: list[Problem]) -> list[InstanceHeader]:
    kept = without_localizers(headers)
    if len(kept) < len(headers):
        problems += [
            Problem(
                header.file_name,
                "The file is a localizer among other images; it is left out of the volume.",
                "Move it to a directory of its own.",
                "warning",
            )
            for header in headers
            if is_localizer(header)
        ]
    return kept


def _differing(header: InstanceHeader, stacked: list[InstanceHeader]) -> Problem:
    return Problem(
        header.file_name,
        f"The geometry differs from the {len(stacked)} others' of the series: {_difference(header, stacked[0])}.",
        "Move it to a directory of its own, or read the instances you mean: read_series(headers).",
        "error",
    )


def _difference(header: InstanceHeader, usual: InstanceHeader) -> str:
    for attribute, keyword in (
        ("rows", "Rows"),
        ("columns", "Columns"),
        ("samples_per_pixel", "SamplesPerPixel"),
        ("number_of_frames", "NumberOfFrames"),
        ("pixel_spacing", "PixelSpacing"),
        ("image_orientation", "ImageOrientationPatient"),
    ):
        seen, expected = getattr(header, attribute), getattr(usual, attribute)
        if seen != expected:
            return f"{keyword} is {_show(seen)} instead of {_show(expected)}"
    return "it is placed differently"


def _show(value: object) -> str:
    if isinstance(value, tuple):
        return "\\".join(f"{number:g}" for number in value)
    return "absent" if value is None else str(value)


def check_stack(headers: Sequence[InstanceHeader], stack: Stack) -> list[Problem]:
    """The problems of a stack as a whole."""
    problems: list[Problem] = []
    if not stack.placed:
        if any(header.image_position is not None for header in headers):
            problems.append(
                Problem(
                    "",
                    "Some instances have no ImagePositionPatient or ImageOrientationPatient; "
                    "the slices are taken in the order of InstanceNumber.",
                    "Check the operator that wrote them.",
                    "warning",
                )
            )
        return problems
    if stack.repeated:
        problems.append(
            Problem(
                "",
                f"{stack.repeated} of {len(headers)} instances lie where another one lies: the series holds several "
                "volumes, e.g. phases or echoes.",
                "Read the instances of one volume: read_series([header for header in element.instances() if …]).",
                "error",
            )
        )
        return problems
    for index, missing in stack.gaps:
        before = headers[stack.order[index]].file_name
        problems.append(
            Problem("", f"{missing} slice(s) missing after {before}.", "Fetch the series again, whole.", "error")
        )
    if stack.uneven_mm:
        problems.append(
            Problem(
                "",
                "The slices are not evenly spaced: distances differ from the median by up to "
                f"{stack.uneven_mm:.3g} mm.",
                "Fetch the series again, or read the instances of one evenly spaced part: read_series(headers).",
                "error",
            )
        )
    if stack.tilt_mm != (0.0, 0.0):
        problems.append(
            Problem(
                "",
                f"The stack is tilted (gantry tilt): each slice lies {stack.tilt_mm[0]:.3g} mm and "
                f"{stack.tilt_mm[1]:.3g} mm off along columns and rows.",
                "Resample it where the geometry matters: element.volume().untilted().",
                "warning",
            )
        )
    return problems
