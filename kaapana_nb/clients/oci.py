"""OCI images as frozen values: descriptors, manifests, configurations; read and written as canonical JSON.

Sources: OCI image specification 1.1, "Content Descriptors", "Image Manifest Specification",
"Image Configuration". Docker's own media types (schema 2) are read, OCI's are written.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from kaapana_nb.errors import BuildError
from kaapana_nb.reference import is_digest

if TYPE_CHECKING:
    from collections.abc import Mapping

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
LAYER_TAR = "application/vnd.oci.image.layer.v1.tar"
EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"

MANIFESTS = (MANIFEST, DOCKER_MANIFEST)
INDEXES = (INDEX, DOCKER_INDEX)

MAX_DOCUMENT = 4 * 1024 * 1024
"""Largest manifest, index or configuration that is read, in bytes (the specification's own limit for manifests)."""

MAX_LAYERS = 127
"""Most layers that container storages stack (overlayfs as Docker and Podman use it)."""

_REMEDY = "Build or fetch the image again; the registry or directory holds something else than an OCI image."


def sha256(data: bytes) -> str:
    """The digest of `data` as OCI writes it."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: the same value gives the same bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def parse_document(data: bytes, what: str) -> dict[str, Any]:
    """Read a JSON object that came from outside.

    Raises
    ------
    BuildError
        When `data` is too big, no JSON, or no object.
    """
    if len(data) > MAX_DOCUMENT:
        raise BuildError(f"The {what} has {len(data)} bytes; at most {MAX_DOCUMENT} were expected.", _REMEDY)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise BuildError(f"The {what} is no JSON: it begins with {data[:40]!r}.", _REMEDY) from None
    if not isinstance(value, dict):
        raise BuildError(f"The {what} is a JSON {type(value).__name__}; an object was expected.", _REMEDY)
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """What a blob is, its digest and its size in bytes."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str = ""

    @classmethod
    def of(cls, data: bytes, media_type: str) -> Descriptor:
        """The descriptor of `data`."""
        return cls(media_type=media_type, digest=sha256(data), size=len(data))

    @classmethod
    def from_json(cls, value: Any) -> Descriptor:
        """Check and take over a descriptor from a document."""
        if not isinstance(value, dict):
            raise BuildError(f"A descriptor is {value!r:.80}; an object was expected.", _REMEDY)
        media_type, digest, size = value.get("mediaType"), value.get("digest"), value.get("size")
        if not (isinstance(media_type, str) and isinstance(digest, str) and is_digest(digest)):
            raise BuildError(f"A descriptor has digest {digest!r:.90}; sha256:<64 hex digits> was expected.", _REMEDY)
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise BuildError(f"The descriptor of {digest} has size {size!r:.40}; a byte count was expected.", _REMEDY)
        return cls(
            media_type=media_type, digest=digest, size=size, annotations=_strings(value.get("annotations")),
            artifact_type=str(value.get("artifactType") or ""),
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """The descriptor as JSON writes it."""
        value: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        if self.artifact_type:
            value["artifactType"] = self.artifact_type
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """An image manifest: configuration, layers from the lowest up, annotations."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)
    media_type: str = MANIFEST
    artifact_type: str = ""
    subject: Descriptor | None = None

    @classmethod
    def parse(cls, data: bytes) -> Manifest:
        """Read a manifest; OCI's and Docker's schema 2 are known."""
        value = parse_document(data, "manifest")
        media_type = value.get("mediaType") or MANIFEST
        layers = value.get("layers")
        if media_type not in MANIFESTS or not isinstance(layers, list) or len(layers) > MAX_LAYERS:
            raise BuildError(
                f"The manifest has media type {media_type!r:.90} and "
                f"{len(layers) if isinstance(layers, list) else 'no'} layers; an image manifest of at most "
                f"{MAX_LAYERS} layers was expected.",
                _REMEDY,
            )
        subject = value.get("subject")
        return cls(
            config=Descriptor.from_json(value.get("config")),
            layers=tuple(Descriptor.from_json(layer) for layer in layers),
            annotations=_strings(value.get("annotations")),
            media_type=media_type,
            artifact_type=str(value.get("artifactType") or ""),
            subject=None if subject is None else Descriptor.from_json(subject),
        )

    def to_bytes(self) -> bytes:
        """The manifest as it is stored; its digest is the image's."""
        value: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "config": self.config.to_json(),
            "layers": [layer.to_json() for layer in self.layers],
        }
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        if self.artifact_type:
            value["artifactType"] = self.artifact_type
        if self.subject is not None:
            value["subject"] = self.subject.to_json()
        return canonical_json(value)

    @property
    def descriptor(self) -> Descriptor:
        """Descriptor of the manifest itself."""
        return Descriptor.of(self.to_bytes(), self.media_type)


_CONFIG_KEYS = ("User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "WorkingDir", "Labels")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """An image's configuration.

    Attributes
    ----------
    diff_ids
        Digest of each layer's uncompressed tar, from the lowest layer up.
    history
        How each layer came to be, as the specification's ``history`` objects.
    other
        Keys of ``config`` that are passed on untouched (``Healthcheck``, ``Volumes``, ``StopSignal``).
    """

    architecture: str
    os: str = "linux"
    created: str = ""
    user: str = ""
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    exposed_ports: tuple[str, ...] = ()
    diff_ids: tuple[str, ...] = ()
    history: tuple[Mapping[str, Any], ...] = ()
    other: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: bytes) -> ImageConfig:
        """Read a configuration; a malformed one raises `BuildError`."""
        value = parse_document(data, "image configuration")
        config = value.get("config") or {}
        rootfs = value.get("rootfs")
        diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
        if not isinstance(config, dict) or not isinstance(diff_ids, list) or not all(map(_is_digest, diff_ids)):
            raise BuildError("The image configuration has no usable config and rootfs.diff_ids.", _REMEDY)
        history = value.get("history") or []
        return cls(
            architecture=str(value.get("architecture") or ""),
            os=str(value.get("os") or "linux"),
            created=str(value.get("created") or ""),
            user=str(config.get("User") or ""),
            env=_list(config.get("Env")),
            entrypoint=_list(config.get("Entrypoint")),
            cmd=_list(config.get("Cmd")),
            working_dir=str(config.get("WorkingDir") or ""),
            labels=_strings(config.get("Labels")),
            exposed_ports=tuple(sorted(config.get("ExposedPorts") or {})),
            diff_ids=tuple(diff_ids),
            history=tuple(MappingProxyType(dict(entry)) for entry in history if isinstance(entry, dict)),
            other={key: config[key] for key in config if key not in _CONFIG_KEYS},
        )

    def to_bytes(self) -> bytes:
        """The configuration as it is stored."""
        config: dict[str, Any] = dict(self.other)
        values: dict[str, Any] = {
            "User": self.user,
            "Env": list(self.env),
            "Entrypoint": list(self.entrypoint),
            "Cmd": list(self.cmd),
            "WorkingDir": self.working_dir,
            "Labels": dict(self.labels),
            "ExposedPorts": {port: {} for port in self.exposed_ports},
        }
        config.update({key: value for key, value in values.items() if value})
        document: dict[str, Any] = {
            "architecture": self.architecture,
            "os": self.os,
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": list(self.diff_ids)},
            "history": [dict(entry) for entry in self.history],
        }
        if self.created:
            document["created"] = self.created
        return canonical_json(document)

    @property
    def environ(self) -> dict[str, str]:
        """``env`` as a mapping; the last of several values counts."""
        return dict(entry.split("=", 1) for entry in self.env if "=" in entry)


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and is_digest(value)


def _strings(value: Any) -> Mapping[str, str]:
    return {str(key): str(text) for key, text in value.items()} if isinstance(value, dict) else {}


def _list(value: Any) -> tuple[str, ...]:
    return tuple(str(item) for item in value) if isinstance(value, list) else ()
