"""The volumes of the sample batch as they are kept in the package: xz over two-dimensional differences.

``sample_data/manifest.json`` says what is there; ``tests/tools/select_sample.py`` made it. A plain
``.nrrd`` with gzip takes 40 % (MR) to 90 % (CT) more room.
"""

from __future__ import annotations

import hashlib
import json
import lzma
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from kaapana_nb.errors import BatchError

Voxels = npt.NDArray[np.int16]

SAMPLE_DATA = resources.files("kaapana_nb.emulator") / "sample_data"
MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceVolume:
    """A volume in the package.

    Attributes
    ----------
    voxels
        Shape (slices, rows, columns); Hounsfield units for CT, arbitrary units for MR.
    spacing_mm
        Between columns, rows and slices (x, y, z of the array's axes reversed).
    row_direction, column_direction
        Unit vectors (LPS) along increasing column and row index: ImageOrientationPatient.
    positions_mm
        Per slice the centre of its first voxel (LPS): ImagePositionPatient.
    attributes
        Technical DICOM attributes of the original in the DICOM JSON model (PS3.18 F.2); empty for
        sources that are no DICOM.
    """

    voxels: Voxels
    spacing_mm: tuple[float, float, float]
    row_direction: tuple[float, float, float]
    column_direction: tuple[float, float, float]
    positions_mm: tuple[tuple[float, float, float], ...]
    attributes: dict[str, Any]


@cache
def manifest() -> dict[str, Any]:
    """What the package's sample data holds, by the name of the volume."""
    volumes: dict[str, Any] = json.loads((SAMPLE_DATA / MANIFEST).read_bytes())["volumes"]
    return volumes


def load_volume(name: str) -> SourceVolume:
    """Read one volume and check it against the manifest's hash.

    Raises
    ------
    BatchError
        When the package's data is damaged.
    """
    entry = manifest()[name]
    try:
        voxels = decode_voxels((SAMPLE_DATA / f"{name}.xz").read_bytes(), tuple(entry["shape"]))
    except (OSError, ValueError, lzma.LZMAError) as error:
        raise _damaged(name, str(error)) from error
    if hashlib.sha256(voxels.astype("<i2", copy=False).tobytes()).hexdigest() != entry["sha256"]:
        raise _damaged(name, "its hash is not the manifest's")
    direction = entry["direction"]
    return SourceVolume(
        voxels=voxels,
        spacing_mm=tuple(entry["spacing_mm"]),
        row_direction=tuple(direction[0]),
        column_direction=tuple(direction[1]),
        positions_mm=tuple(tuple(position) for position in entry["positions_mm"]),
        attributes=entry.get("attributes", {}),
    )


def encode_voxels(voxels: Voxels) -> bytes:
    """Pack an array of shape (slices, rows, columns) without loss; the same array gives the same bytes.

    Each voxel becomes its difference from the plane through its left and upper neighbours
    (modulo 65536), small numbers of either sign become small unsigned ones, low and high bytes
    are kept apart, and xz packs both.
    """
    difference = np.diff(np.diff(voxels, axis=2, prepend=np.int16(0)), axis=1, prepend=np.int16(0))
    unsigned = ((difference << 1) ^ (difference >> 15)).view(np.uint16)
    planes = (unsigned & 0xFF).astype(np.uint8).tobytes() + (unsigned >> 8).astype(np.uint8).tobytes()
    return lzma.compress(planes, preset=9)


def decode_voxels(data: bytes, shape: tuple[int, int, int]) -> Voxels:
    """Undo `encode_voxels`."""
    planes = np.frombuffer(lzma.decompress(data), np.uint8).reshape(2, *shape)
    unsigned = planes[0] | (planes[1].astype(np.uint16) << 8)
    difference = (unsigned >> 1).view(np.int16) ^ -(unsigned & 1).view(np.int16)
    rows: Voxels = np.cumsum(difference, axis=1, dtype=np.int16)
    return np.cumsum(rows, axis=2, dtype=np.int16, out=rows)


def _damaged(name: str, detail: str) -> BatchError:
    return BatchError(
        f"The sample volume {name} in the package is damaged: {detail}.",
        "Install kaapana-nb again.",
    )
