"""OCI image layouts: directories that hold images as files, each named by its digest.

Source: OCI image specification 1.1, "Image Layout Specification". A layout may be *sparse*:
blobs that a registry is known to have (a base image's layers) need not be in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kaapana_nb.clients.oci import (
    INDEX,
    MANIFESTS,
    MAX_DOCUMENT,
    Descriptor,
    ImageConfig,
    Manifest,
    canonical_json,
    parse_document,
    sha256,
)
from kaapana_nb.errors import BuildError
from kaapana_nb.files import atomic_file, write_atomic
from kaapana_nb.reference import is_digest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REF_NAME = "org.opencontainers.image.ref.name"
_LAYOUT_FILE = b'{"imageLayoutVersion":"1.0.0"}'
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One image of a layout: the manifest's descriptor, the manifest, the configuration."""

    descriptor: Descriptor
    manifest: Manifest
    config: ImageConfig

    @property
    def digest(self) -> str:
        """The image's digest, that of its manifest."""
        return self.descriptor.digest


@dataclass(frozen=True, slots=True)
class OciLayout:
    """An OCI image layout at `path`. Files appear whole or not at all, and never change once named."""

    path: Path

    @classmethod
    def create(cls, path: Path) -> OciLayout:
        """Make an empty layout, or open the one that is there."""
        (path / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
        if not (path / "oci-layout").is_file():
            write_atomic(path / "oci-layout", _LAYOUT_FILE)
        return cls(path)

    @classmethod
    def is_layout(cls, path: Path) -> bool:
        """Whether `path` is a layout that holds an image."""
        return (path / "oci-layout").is_file() and (path / "index.json").is_file()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the layout for this process while an image is put together in it."""
        with (self.path / ".lock").open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def blob_path(self, digest: str) -> Path:
        """Where a blob is or would be."""
        if not is_digest(digest):
            raise BuildError(f"{digest!r:.90} is no digest.", "Build the image again.")
        return self.path / "blobs" / "sha256" / digest.removeprefix("sha256:")

    def has(self, descriptor: Descriptor) -> bool:
        """Whether the blob is here, whole (by its size: names appear only once a file is complete)."""
        with contextlib.suppress(OSError):
            return self.blob_path(descriptor.digest).stat().st_size == descriptor.size
        return False

    def read(self, descriptor: Descriptor) -> bytes:
        """A small blob (manifest, configuration), its digest checked.

        Raises
        ------
        BuildError
            When it is missing, larger than a document may be, or not what its digest says.
        """
        path = self.blob_path(descriptor.digest)
        try:
            with path.open("rb") as file:
                data = file.read(MAX_DOCUMENT + 1)
        except FileNotFoundError:
            raise BuildError(
                f"The image layout {self.path} lacks blob {descriptor.digest}.",
                f"Remove {self.path} and build or fetch the image again.",
            ) from None
        if len(data) > MAX_DOCUMENT or sha256(data) != descriptor.digest:
            raise BuildError(
                f"The blob {path} is not what its digest says.", f"Remove {self.path} and build or fetch it again."
            )
        return data

    def add(self, data: bytes, media_type: str) -> Descriptor:
        """Store a small blob."""
        descriptor = Descriptor.of(data, media_type)
        if not self.has(descriptor):
            write_atomic(self.blob_path(descriptor.digest), data)
        return descriptor

    def add_file(self, source: Path, descriptor: Descriptor) -> None:
        """Store the file `source`, whose descriptor is known, by a hard link or else by a checked copy."""
        if self.has(descriptor):
            return
        target = self.blob_path(descriptor.digest)
        with contextlib.suppress(FileNotFoundError):
            target.unlink()
        try:
            os.link(source, target)
        except OSError:
            digest = hashlib.sha256()
            with source.open("rb") as blob, atomic_file(target) as file:
                while chunk := blob.read(_CHUNK):
                    digest.update(chunk)
                    file.write(chunk)
                if "sha256:" + digest.hexdigest() != descriptor.digest:
                    raise BuildError(
                        f"The blob {source} is not what its digest says.", f"Remove {source} and build again."
                    ) from None

    def copy_from(self, other: OciLayout, descriptor: Descriptor) -> bool:
        """Take a blob over from another layout; ``False`` when it is not there either."""
        if not self.has(descriptor):
            if not other.has(descriptor):
                return False
            self.add_file(other.blob_path(descriptor.digest), descriptor)
        return True

    def set_image(self, manifest: Manifest, name: str) -> Descriptor:
        """Make `manifest` the layout's one image, called `name`, and drop the blobs of the one before."""
        stored = self.add(manifest.to_bytes(), manifest.media_type)
        named = Descriptor(
            media_type=stored.media_type, digest=stored.digest, size=stored.size, annotations={REF_NAME: name}
        )
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [named.to_json()]}
        write_atomic(self.path / "index.json", canonical_json(index))
        keep = {stored.digest, manifest.config.digest, *(layer.digest for layer in manifest.layers)}
        for path in (self.path / "blobs" / "sha256").iterdir():
            if f"sha256:{path.name}" not in keep:
                path.unlink(missing_ok=True)
        return stored

    def image(self) -> Image:
        """The layout's one image.

        Raises
        ------
        BuildError
            When `path` is no layout, or holds none or several images.
        """
        try:
            index = parse_document((self.path / "index.json").read_bytes(), f"index of {self.path}")
        except OSError:
            raise BuildError(
                f"{self.path} is no OCI image layout: it has no index.json.", "Name a directory that holds an image."
            ) from None
        entries = index.get("manifests")
        if not isinstance(entries, list) or len(entries) != 1:
            raise BuildError(
                f"{self.path} holds {len(entries) if isinstance(entries, list) else 'no'} images; one was expected.",
                "Name an image layout with one image.",
            )
        descriptor = Descriptor.from_json(entries[0])
        if descriptor.media_type not in MANIFESTS:
            raise BuildError(
                f"{self.path} holds a {descriptor.media_type!r:.90}; an image manifest was expected.",
                "Name an image layout with one image for one platform.",
            )
        manifest = Manifest.parse(self.read(descriptor))
        config = ImageConfig.parse(self.read(manifest.config))
        if len(config.diff_ids) != len(manifest.layers):
            raise BuildError(
                f"The image in {self.path} has {len(manifest.layers)} layers and {len(config.diff_ids)} diff ids.",
                "Build the image again.",
            )
        return Image(descriptor=descriptor, manifest=manifest, config=config)


def verify_blob(path: Path, digest: str) -> None:
    """Read a blob through and compare its digest.

    Raises
    ------
    BuildError
        When the file's content is something else.
    """
    with path.open("rb") as file:
        seen = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    if seen != digest:
        raise BuildError(f"{path} has the digest {seen}; {digest} was expected.", f"Remove {path} and build again.")
