"""`InstanceHeader`: what one DICOM file says of itself, without its pixels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pydicom import Dataset

MAX_TEXT = 1024
"""Longest text value kept from a header (characters): LO holds 64, a UID 64, an ImageType a few times 16."""


class InstanceHeader(NamedTuple):
    """One DICOM instance. Names are the keywords of DICOM PS3.6; a value the file does not have is ``None``.

    Attributes
    ----------
    directory, file_name
        The file; `path` is both together.
    patient_id
        PatientID (0010,0020): identifies a person unless the platform has replaced it by a pseudonym.
    pixel_spacing
        PixelSpacing (0028,0030): mm between rows, then mm between columns.
    image_position
        ImagePositionPatient (0020,0032): LPS position of the centre of the first pixel, mm. Enhanced
        multi-frame objects have it per frame, not here.
    image_orientation
        ImageOrientationPatient (0020,0037): direction of increasing column index, then of row index, LPS.
    pixel_offset, pixel_length
        Where the value of PixelData begins in the file and how long it says it is, bytes; the length is
        ``None`` for encapsulated (compressed) pixels; both are ``None`` where there is no PixelData or
        the position in the file means nothing (deflated).
    file_size
        Bytes.
    """

    directory: Path
    file_name: str
    sop_class_uid: str | None = None
    sop_instance_uid: str | None = None
    series_uid: str | None = None
    study_uid: str | None = None
    transfer_syntax_uid: str | None = None
    modality: str | None = None
    series_description: str | None = None
    body_part: str | None = None
    patient_id: str | None = None
    image_type: tuple[str, ...] | None = None
    instance_number: int | None = None
    rows: int | None = None
    columns: int | None = None
    number_of_frames: int | None = None
    samples_per_pixel: int | None = None
    photometric_interpretation: str | None = None
    planar_configuration: int | None = None
    bits_allocated: int | None = None
    bits_stored: int | None = None
    pixel_representation: int | None = None
    pixel_spacing: tuple[float, ...] | None = None
    slice_thickness_mm: float | None = None
    image_position: tuple[float, ...] | None = None
    image_orientation: tuple[float, ...] | None = None
    rescale_slope: float | None = None
    rescale_intercept: float | None = None
    gantry_tilt_deg: float | None = None
    pixel_offset: int | None = None
    pixel_length: int | None = None
    file_size: int = 0

    @property
    def path(self) -> Path:
        """The file."""
        return self.directory / self.file_name


TAGS: dict[int, str] = {
    0x00020010: "transfer_syntax_uid",
    0x00080008: "image_type",
    0x00080016: "sop_class_uid",
    0x00080018: "sop_instance_uid",
    0x00080060: "modality",
    0x0008103E: "series_description",
    0x00100020: "patient_id",
    0x00180015: "body_part",
    0x00180050: "slice_thickness_mm",
    0x00181120: "gantry_tilt_deg",
    0x0020000D: "study_uid",
    0x0020000E: "series_uid",
    0x00200013: "instance_number",
    0x00200032: "image_position",
    0x00200037: "image_orientation",
    0x00280002: "samples_per_pixel",
    0x00280004: "photometric_interpretation",
    0x00280006: "planar_configuration",
    0x00280008: "number_of_frames",
    0x00280010: "rows",
    0x00280011: "columns",
    0x00280030: "pixel_spacing",
    0x00280100: "bits_allocated",
    0x00280101: "bits_stored",
    0x00280103: "pixel_representation",
    0x00281052: "rescale_intercept",
    0x00281053: "rescale_slope",
}
"""The tags that an `InstanceHeader` is made of, and the attribute that each becomes."""

_FLOATS = frozenset({"slice_thickness_mm", "gantry_tilt_deg", "rescale_intercept", "rescale_slope"})
_FLOAT_LISTS = frozenset({"image_position", "image_orientation", "pixel_spacing"})
_INTEGERS = frozenset(
    {
        "instance_number", "samples_per_pixel", "planar_configuration", "number_of_frames", "rows", "columns",
        "bits_allocated", "bits_stored", "pixel_representation",
    }
)  # fmt: skip


def header_value(attribute: str, value: Any) -> Any:
    """A raw header value (text, number or a list of them) as the attribute's type; ``None`` if it is none.

    A file may hold anything in any tag, so a value that cannot be the attribute's is as good as absent.
    """
    if value is None:
        return None
    if attribute in _FLOAT_LISTS:
        parts = value.split("\\") if isinstance(value, str) else value
        numbers = tuple(_number(part) for part in (parts if isinstance(parts, list) else [parts]))
        return None if not numbers or any(number is None for number in numbers) else numbers
    if attribute == "image_type":
        parts = value.split("\\") if isinstance(value, str) else value
        texts = tuple(str(part).strip(" \0")[:MAX_TEXT] for part in (parts if isinstance(parts, list) else [parts]))
        return texts if any(texts) else None
    if attribute in _FLOATS:
        return _number(value)
    if attribute in _INTEGERS:
        number = _number(value)
        return int(number) if number is not None and number == int(number) and abs(number) < 2**53 else None
    if not isinstance(value, str):
        return None
    return value.strip(" \0")[:MAX_TEXT] or None


def _number(value: Any) -> float | None:
    try:
        number = float(value.strip(" \0") if isinstance(value, str) else value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if -1e300 < number < 1e300 else None


def header_from_dataset(dataset: Dataset, path: Path, file_size: int) -> InstanceHeader:
    """The header row of a dataset that pydicom has read."""
    values: dict[str, Any] = {}
    for tag, attribute in TAGS.items():
        source = dataset.file_meta if tag < 0x00080000 else dataset
        values[attribute] = header_value(attribute, _element_value(source, tag))
    return InstanceHeader(directory=path.parent, file_name=path.name, file_size=file_size, **values)


def _element_value(dataset: Dataset | None, tag: int) -> Any:
    """The value of one element, or ``None`` where it is absent or pydicom cannot convert it."""
    if dataset is None:
        return None
    try:
        element = dataset.get(tag)
    except Exception:  # noqa: BLE001 - pydicom raises many kinds on damaged values; none of them may hide the file
        return None
    if element is None or element.VR == "SQ":
        return None
    value = element.value
    if value is None or isinstance(value, (str, int, float, bytes)):
        return value
    if hasattr(value, "__iter__"):
        return list(value)
    return str(value)
