"""What two DICOM objects differ in, attribute by attribute, without quoting text."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom

from kaapana_nb.ship.compare_files import Tolerance, array_difference, number_difference, text_difference

if TYPE_CHECKING:
    from pydicom.dataelem import DataElement
    from pydicom.dataset import Dataset

MADE_ANEW: Mapping[str, str] = MappingProxyType(
    {
        "InstanceCreationDate": "the day on which this file was made (PS3.3 C.12.1)",
        "InstanceCreationTime": "the time at which this file was made (PS3.3 C.12.1)",
        "ContentDate": "the day on which the content of a derived object was made",
        "ContentTime": "the time at which the content of a derived object was made",
    }
)
"""Attributes that must differ between two runs, with the reason; they are not compared."""

NEW_UIDS: Mapping[str, str] = MappingProxyType(
    {
        "SOPInstanceUID": "a new object has a new UID",
        "MediaStorageSOPInstanceUID": "repeats SOPInstanceUID in the file's header",
        "SeriesInstanceUID": "new objects belong to a new series",
        "DimensionOrganizationUID": "made anew with each multi-frame object",
    }
)
"""UIDs that a new object gets, with the reason. They are not compared where neither side's is one of the batch."""

_NUMBERS = frozenset({"DS", "FL", "FD", "IS", "SL", "SS", "SV", "UL", "US", "UV"})
_PIXELS = frozenset({"PixelData", "FloatPixelData", "DoubleFloatPixelData"})
_PATIENT_GROUP = 0x0010


def dicom_difference(left: Path, right: Path, tolerance: Tolerance, known_uids: frozenset[str]) -> str:
    """The first attribute in which two DICOM files differ; the pixels are compared last."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about values that are not as the standard wants them: on both sides
        one, other = pydicom.dcmread(left), pydicom.dcmread(right)
        return (
            _dataset_difference(one.file_meta, other.file_meta, tolerance, known_uids, "")
            or _dataset_difference(one, other, tolerance, known_uids, "")
            or _pixel_difference(one, other, tolerance)
        )


def pair_renamed(lefts: Mapping[str, Path], rights: Mapping[str, Path]) -> dict[str, str]:
    """Pair files that are named after their own new SOPInstanceUID: left name -> right name.

    Such a file has another name on the other side. Within one directory they are paired by series and
    instance number, and only where these tell them apart.
    """
    found = [_by_number(side) for side in (lefts, rights)]
    return {name: found[1][key] for key, name in found[0].items() if key in found[1]}


def _by_number(files: Mapping[str, Path]) -> dict[tuple[str, str, str], str]:
    keyed: dict[tuple[str, str, str], str | None] = {}
    for name, path in files.items():
        if path.suffix.lower() != ".dcm":
            continue
        try:
            tags = ["SOPInstanceUID", "SeriesNumber", "InstanceNumber"]
            dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)
            if dataset.get("SOPInstanceUID") != path.stem:
                continue
            numbers = str(dataset.get("SeriesNumber")), str(dataset.get("InstanceNumber"))
        except Exception:  # noqa: BLE001, S112 - a damaged file is told of as a file that one side lacks
            continue
        key = (str(Path(name).parent), *numbers)
        keyed[key] = None if key in keyed else name
    return {key: name for key, name in keyed.items() if name is not None}


def _dataset_difference(
    left: Dataset, right: Dataset, tolerance: Tolerance, known_uids: frozenset[str], where: str
) -> str:
    for tag in sorted({*left.keys(), *right.keys()}):
        place = where + (pydicom.datadict.keyword_for_tag(tag) or str(tag))
        name = place.rsplit(".", 1)[-1]
        if name in MADE_ANEW or name in _PIXELS or name == "FileMetaInformationGroupLength":
            continue
        if tag not in left or tag not in right:
            return f"{place}: only the {'left' if tag in left else 'right'} side has it"
        one, other = left[tag], right[tag]
        if one.VR != other.VR:
            return f"{place}: value representation {one.VR} and {other.VR}"
        if one.VR == "SQ":
            if len(one.value) != len(other.value):
                return f"{place}: {len(one.value)} and {len(other.value)} items"
            for index, items in enumerate(zip(one.value, other.value, strict=True)):
                if text := _dataset_difference(*items, tolerance, known_uids, f"{place}[{index}]."):
                    return text
        elif name in NEW_UIDS and not {str(one.value), str(other.value)} & known_uids:
            continue
        elif text := _element_difference(one, other, tolerance):
            return f"{place}: {text}"
    return ""


def _element_difference(left: DataElement, right: DataElement, tolerance: Tolerance) -> str:
    one, other = list(_values(left)), list(_values(right))
    if one == other:
        return ""
    if len(one) != len(other):
        return f"{len(one)} and {len(other)} values"
    if left.VR in _NUMBERS:
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            if not tolerance.allows(float(a), float(b)):
                hidden = left.tag.group == _PATIENT_GROUP
                return f"value {index}: " + ("numbers differ" if hidden else number_difference(a, b))
        return ""
    if isinstance(one[0], bytes):
        return f"the bytes differ ({len(one[0])} and {len(other[0])} bytes)"
    return next(text_difference(str(a), str(b)) for a, b in zip(one, other, strict=True) if a != b)


def _values(element: DataElement) -> Iterator[Any]:
    """The values of an element, however many; decimal and integer strings as plain numbers."""
    value = element.value
    values = [] if value is None or value == "" else value if element.VM > 1 else [value]
    for item in values:
        if element.VR == "DS":
            yield float(item)
        elif element.VR == "IS":
            yield int(item)
        else:
            yield item


def _pixel_difference(left: Dataset, right: Dataset, tolerance: Tolerance) -> str:
    """The pixels: equal attributes are behind us, so both sides have one shape and one type."""
    present = [{name for name in _PIXELS if name in side} for side in (left, right)]
    if present[0] != present[1]:
        return f"{min(present[0] ^ present[1])}: only the {'left' if present[0] - present[1] else 'right'} side has it"
    for name in present[0]:
        if left[name].value != right[name].value:
            one, other = np.asarray(left.pixel_array), np.asarray(right.pixel_array)
            if text := array_difference(one, other, tolerance, "pixel values"):
                return f"{name}: {text}"
    return ""
