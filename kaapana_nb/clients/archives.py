"""Image archives: an OCI layout in a tar file that `docker load` takes as well.

Sources: OCI image specification 1.1, "Image Layout Specification"; Docker image specification 1.2,
"Combined Image JSON + Filesystem Changeset Format" (``manifest.json``).
"""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

from kaapana_nb.clients.layout import REF_NAME, OciLayout
from kaapana_nb.clients.oci import INDEX, Descriptor, canonical_json
from kaapana_nb.errors import BuildError
from kaapana_nb.files import atomic_file

if TYPE_CHECKING:
    from pathlib import Path


def pack_layout(layout: OciLayout, name: str, tag: str, file: Path) -> None:
    """Write a layout's image to `file`; the same image and name give the same bytes.

    Parameters
    ----------
    name
        What `docker load` calls the image: ``repository:tag``.
    tag
        The image's name in the archive's OCI index.

    Raises
    ------
    BuildError
        When `file` cannot be written or the layout lacks a layer.
    """
    found = layout.image()
    named = Descriptor(
        media_type=found.descriptor.media_type, digest=found.descriptor.digest, size=found.descriptor.size,
        annotations={REF_NAME: tag, "io.containerd.image.name": name},
    )  # fmt: skip
    docker = {
        "Config": _place(found.manifest.config),
        "RepoTags": [name],
        "Layers": [_place(layer) for layer in found.manifest.layers],
    }
    documents = {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": canonical_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": [named.to_json()]}),
        "manifest.json": canonical_json([docker]),
    }
    blobs = {
        _place(item): layout.blob_path(item.digest)
        for item in (found.descriptor, found.manifest.config, *found.manifest.layers)
    }
    try:
        with atomic_file(file) as out, tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for path in ("blobs", "blobs/sha256"):
                archive.addfile(_member(path, 0, tarfile.DIRTYPE, 0o755))
            for path, blob in sorted(blobs.items()):
                with blob.open("rb") as content:
                    archive.addfile(_member(path, blob.stat().st_size), content)
            for path, data in documents.items():
                archive.addfile(_member(path, len(data)), io.BytesIO(data))
    except OSError as error:
        raise BuildError(f"The archive {file} cannot be written ({error.strerror}).", "Name another file.") from error


def _place(descriptor: Descriptor) -> str:
    return f"blobs/sha256/{descriptor.digest.removeprefix('sha256:')}"


def _member(path: str, size: int, kind: bytes = tarfile.REGTYPE, mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.size, info.type, info.mode = size, kind, mode
    return info
