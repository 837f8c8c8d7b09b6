"""Small DICOM series with known geometry and pixels, for the tests of the data layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

UID_ROOT = "1.2.826.0.1.3680043.8.498.77"
Edit = Callable[[Dataset, int], None]


def stored_values(slices: int, rows: int, columns: int) -> np.ndarray:
    """Different in every pixel, with the ends of 12 bits in it."""
    count = slices * rows * columns
    values = (np.arange(count) * 37 % 4096).astype(np.int16)
    values[:2] = 0, 4095
    return values.reshape(slices, rows, columns)


def make_dataset(
    number: int,
    pixels: np.ndarray,
    *,
    series: str = "1",
    spacing: tuple[float, float, float] = (0.5, 0.75, 2.0),
    origin: tuple[float, float, float] = (-10.0, 20.0, 30.0),
    orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
) -> Dataset:
    """One CT instance, the `number`-th along the normal. `spacing` is (columns, rows, slices), mm."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{UID_ROOT}.{series}.1.{number + 1}"
    dataset.StudyInstanceUID = f"{UID_ROOT}.0"
    dataset.SeriesInstanceUID = series_uid(series)
    dataset.FrameOfReferenceUID = f"{UID_ROOT}.0.1"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.Modality = "CT"
    dataset.SeriesDescription = "Thorax"
    dataset.BodyPartExamined = "CHEST"
    dataset.PatientID = "SECRET-ID"
    dataset.PatientName = "Secret^Name"
    dataset.InstanceNumber = number + 1
    normal = np.cross(orientation[:3], orientation[3:])
    position = np.array(origin) + normal * spacing[2] * number
    dataset.ImagePositionPatient = [f"{value:.8g}" for value in position]
    dataset.ImageOrientationPatient = list(orientation)
    dataset.PixelSpacing = [spacing[1], spacing[0]]
    dataset.SliceThickness = spacing[2]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 1
    dataset.RescaleSlope, dataset.RescaleIntercept = "1", "-1024"
    dataset.add_new("PixelData", "OW", pixels.astype("<i2").tobytes())
    return dataset


def series_uid(series: str = "1") -> str:
    return f"{UID_ROOT}.{series}"


def write_series(
    directory: Path, *, slices: int = 5, rows: int = 6, columns: int = 8, edit: Edit | None = None, **geometry
) -> np.ndarray:
    """Write one series, last slice first by file name; returns the stored values (slices, rows, columns)."""
    directory.mkdir(parents=True, exist_ok=True)
    values = stored_values(slices, rows, columns)
    for number in range(slices):
        dataset = make_dataset(number, values[number], **geometry)
        if edit is not None:
            edit(dataset, number)
        dataset.save_as(directory / f"{slices - number:04d}.dcm", enforce_file_format=True)
    return values


def write_run(
    run_dir: Path, series: tuple[str, ...] = ("1", "2"), *, input_name: str = "get-input-data", **kind
) -> Path:
    """A run in the platform's layout; returns its directory."""
    for name in series:
        write_series(run_dir / "batch" / series_uid(name) / input_name, series=name, **kind)
    return run_dir
