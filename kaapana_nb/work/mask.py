"""Patients' identifiers out of messages: what an algorithm raises may quote the header it was reading."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kaapana_nb.data.batch import BatchElement

MASK = "***"
_KEYWORDS = ("PatientName", "PatientID", "PatientBirthDate", "AccessionNumber", "ReferringPhysicianName")
_SHORTEST = 3
"""Shorter values occur in every text by chance."""


def mask_identifiers(text: str, elements: Iterable[BatchElement]) -> str:
    """Replace what identifies the elements' patients in `text`.

    Reads one header per element, so it is for the path of errors only.
    """
    values = {value for element in elements for value in _identifiers(element)}
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, MASK)
    return text


def _identifiers(element: BatchElement) -> Iterator[str]:
    import pydicom

    directory = element.element_dir
    for path in sorted(directory.glob("*/*")) if directory.is_dir() else ():
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_KEYWORDS))
        except Exception:  # noqa: BLE001,S112 - a file that cannot be read holds nothing that could be recognised
            continue
        for keyword in _KEYWORDS:
            value = str(header.get(keyword, ""))
            parts = [value, *value.replace("=", "^").split("^")]
            yield from (part for part in parts if len(part) >= _SHORTEST)
        return
