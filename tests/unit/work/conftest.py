"""A small batch of real DICOM files, and notebooks written in the test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nbformat
import numpy as np
import pydicom
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian


def write_series(directory: Path, uid: str, slices: int = 3, size: int = 8) -> None:
    directory.mkdir(parents=True)
    for k in range(slices):
        ds = pydicom.Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = CTImageStorage
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = f"{uid}.{k + 1}"
        ds.PatientName, ds.PatientID, ds.PatientBirthDate = "Planted^Name", "PID-4711", "19700101"
        ds.Modality, ds.SeriesInstanceUID, ds.StudyInstanceUID = "CT", uid, "1.2.3"
        ds.SeriesNumber, ds.InstanceNumber = "1", str(k + 1)
        ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, 2 * k], [1, 0, 0, 0, 1, 0]
        ds.PixelSpacing, ds.SliceThickness = [1, 1], "2"
        ds.Rows = ds.Columns = size
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
        ds.RescaleSlope, ds.RescaleIntercept = "1", "-1024"
        pixels = np.full((size, size), 1000, "<i2")
        pixels[2:5, 2:5] = 1500
        ds.PixelData = pixels.tobytes()
        ds.save_as(directory / f"{ds.SOPInstanceUID}.dcm", enforce_file_format=True)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run with three series of three slices."""
    run = tmp_path / "run-1"
    for number in (1, 2, 3):
        write_series(run / "batch" / f"1.2.{number}" / "get-input-data", f"1.2.{number}")
    return run


@pytest.fixture
def notebook(tmp_path: Path) -> Callable[..., Path]:
    """Writes a notebook of code cells; a cell may be ``(source, tag)``."""

    def write(*cells: str | tuple[str, str], name: str = "example.ipynb") -> Path:
        document = new_notebook()
        for cell in cells:
            source, tag = cell if isinstance(cell, tuple) else (cell, "")
            document.cells.append(new_code_cell(source, metadata={"tags": [tag]} if tag else {}))
        path = tmp_path / name
        path.write_text(nbformat.writes(document))
        return path

    return write
