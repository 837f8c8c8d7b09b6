"""One file that holds an image, for platforms that no registry reaches.

The archive is an OCI layout in a tar (``skopeo``, ``podman load``, containerd) that also has Docker's
``manifest.json``, so that ``docker load`` and the platform's ``import-container`` take it as well.
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

    from kaapana_nb.clients.registry import RegistryClient
    from kaapana_nb.ship.build import BuiltImage


def write_archive(image: BuiltImage, file: Path, *, client: RegistryClient | None = None) -> Path:
    """Write the whole image, base included, to `file`; the same image gives the same bytes.

    Parameters
    ----------
    client
        The registry that has the base's layers, when `image.layout` lacks them; they are fetched.

    Raises
    ------
    BuildError
        When a layer is nowhere to be had, or `file` cannot be written.
    """
    layout = OciLayout(image.layout)
    found = layout.image()
    complete_layout(image, client)
    name = str(image.reference.with_digest("")) if image.reference.tag else str(image.reference)
    named = Descriptor(
        media_type=found.descriptor.media_type, digest=found.descriptor.digest, size=found.descriptor.size,
        annotations={REF_NAME: image.reference.tag or "latest", "io.containerd.image.name": name},
    )  # fmt: skip
    index = canonical_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": [named.to_json()]})
    docker = [
        {
            "Config": _place(found.manifest.config),
            "RepoTags": [name],
            "Layers": [_place(layer) for layer in found.manifest.layers],
        }
    ]
    documents = {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": index,
        "manifest.json": canonical_json(docker),
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
    return file


def complete_layout(image: BuiltImage, client: RegistryClient | None) -> None:
    """Fetch the layers that an image's layout lacks from the registry of its base.

    Raises
    ------
    BuildError
        When they are in no registry that is known.
    """
    layout = OciLayout(image.layout)
    missing = [layer for layer in layout.image().manifest.layers if not layout.has(layer)]
    if not missing:
        return
    if client is None or image.base.registry != client.host:
        raise BuildError(
            f"{len(missing)} layers of the base {image.base} are not on this machine.",
            "Build on a base that is here (--base DIR), or name its registry with --push.",
        )
    for layer in missing:
        with atomic_file(layout.blob_path(layer.digest)) as file:
            client.fetch_blob(image.base.repository, layer, file)


def _place(descriptor: Descriptor) -> str:
    return f"blobs/sha256/{descriptor.digest.removeprefix('sha256:')}"


def _member(path: str, size: int, kind: bytes = tarfile.REGTYPE, mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.size, info.type, info.mode = size, kind, mode
    return info
