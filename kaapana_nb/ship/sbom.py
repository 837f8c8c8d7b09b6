"""The software bill of materials of an image: CycloneDX, from the wheels that went in.

It depends on the packages and the base alone, so that a changed notebook does not change it.
Sources: CycloneDX 1.6; package URLs (purl) of type pypi and oci.
"""

from __future__ import annotations

import email.parser
import hashlib
import uuid
import zipfile
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from kaapana_nb.clients.oci import canonical_json
from kaapana_nb.errors import BuildError
from kaapana_nb.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kaapana_nb.ship.wheels import Wheel

MEDIA_TYPE = "application/vnd.cyclonedx+json"
_FORMAT = 1
_MAX_METADATA = 1 << 20


def write_sbom(
    directory: Path, name: str, version: str, wheels: Sequence[Wheel], base_name: str, base_digest: str
) -> Path:
    """Write the bill of materials of an image; give the file, which is made once per set of packages.

    Parameters
    ----------
    directory
        Where finished ones are kept.
    base_digest
        Digest of the base image, which is a component itself.
    """
    described = [(wheel.name, str(wheel.version), wheel.sha256) for wheel in wheels]
    key = hashlib.sha256(canonical_json([_FORMAT, name, version, described, base_name, base_digest])).hexdigest()
    path = directory / f"{key}.cdx.json"
    if not path.is_file():
        write_atomic(path, _document(key, name, version, wheels, base_name, base_digest))
    return path


def _document(key: str, name: str, version: str, wheels: Sequence[Wheel], base_name: str, base_digest: str) -> bytes:
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.license import DisjunctiveLicense
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    image = Component(name=name, version=version, type=ComponentType.CONTAINER, bom_ref="image")
    base = Component(
        name=base_name, version=base_digest, type=ComponentType.CONTAINER, bom_ref="base",
        purl=PackageURL("oci", name=base_name.rpartition("/")[2].partition(":")[0], version=base_digest),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=base_digest.removeprefix("sha256:"))],
    )  # fmt: skip
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_URL, key), components=[base])
    bom.metadata = BomMetaData(component=image, timestamp=datetime.fromtimestamp(0, UTC))
    packages = []
    for wheel in sorted(wheels, key=lambda item: item.name):
        summary, licence = _metadata(wheel.path)
        package = Component(
            name=wheel.name, version=str(wheel.version), type=ComponentType.LIBRARY, description=summary or None,
            bom_ref=f"pypi:{wheel.name}", purl=PackageURL("pypi", name=wheel.name, version=str(wheel.version)),
            licenses=[DisjunctiveLicense(name=licence)] if licence else None,
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=wheel.sha256)],
        )  # fmt: skip
        packages.append(package)
    for package in packages:
        bom.components.add(package)
    bom.register_dependency(image, [base, *packages])
    return str(JsonV1Dot6(bom).output_as_string(indent=1)).encode()


def _metadata(path: Path) -> tuple[str, str]:
    """Summary and licence that a wheel's METADATA names (core metadata 2.4)."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
            with archive.open(names[0]) as file:
                message = email.parser.BytesParser().parsebytes(file.read(_MAX_METADATA), headersonly=True)
    except (zipfile.BadZipFile, IndexError, OSError, RuntimeError, NotImplementedError) as error:
        raise BuildError(f"{path.name} has no readable METADATA.", f"Remove {path} and build again.") from error
    classifiers = [text.rpartition(" :: ")[2] for text in message.get_all("Classifier", []) if "License ::" in text]
    licence = message.get("License-Expression") or "; ".join(classifiers) or message.get("License", "")
    return " ".join(str(message.get("Summary", "")).split())[:200], " ".join(str(licence).split())[:100]
