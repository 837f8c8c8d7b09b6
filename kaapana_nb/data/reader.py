"""Reading the header rows of DICOM files."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path

from kaapana_nb.data.header import TAGS, InstanceHeader, header_from_dataset


def read_headers(paths: Iterable[Path]) -> list[InstanceHeader]:
    """The header rows of those files that are DICOM files, in the order of `paths`."""
    return [header for path in paths if (header := read_header(path)) is not None]


def read_header(path: Path) -> InstanceHeader | None:
    """The header row of one file, or ``None`` when it is no DICOM file that has a SOP class."""
    import pydicom

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(TAGS))
            header = header_from_dataset(dataset, path, path.stat().st_size)
    except Exception:  # noqa: BLE001 - pydicom raises many kinds on damaged files; one of them must not hide the others
        return None
    return header if header.sop_class_uid else None
