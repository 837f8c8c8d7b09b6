"""Finding the base image of a build: a directory, a local layout, or a registry that has it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kaapana_nb.clients.credentials import find_credentials
from kaapana_nb.clients.layout import Image, OciLayout
from kaapana_nb.clients.oci import INDEXES, Descriptor, ImageConfig, Manifest, parse_document
from kaapana_nb.clients.registry import RegistryClient
from kaapana_nb.errors import BuildError
from kaapana_nb.files import atomic_file
from kaapana_nb.reference import ImageReference
from kaapana_nb.ship import base_image

if TYPE_CHECKING:
    from kaapana_nb.settings import Settings

Log = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseImage:
    """A base image: what it is, and where its layers are.

    Attributes
    ----------
    layout
        The layout that holds its layers, or ``None`` when only a registry does.
    reference
        Where it was found, with a registry when it came from one.
    name
        What it is called: the Dockerfile's FROM, or the reference that was named instead.
    """

    image: Image
    layout: OciLayout | None
    reference: ImageReference
    name: str


def find_base(
    wanted: ImageReference, *, base: str | None, settings: Settings, client: RegistryClient | None, log: Log
) -> BaseImage:
    """The base image of a Dockerfile whose FROM line names `wanted`.

    `base` (a layout's directory, or a reference) goes first; then the local layout of that name; then the
    registry that is pushed to. The default base is made from this machine's Python when nobody has it.

    Raises
    ------
    BuildError
        When it is nowhere, or what is there is no image for one platform.
    """
    if base is not None and Path(base).is_dir():
        return _from_layout(Path(base), wanted)
    reference = ImageReference.parse(base) if base is not None else wanted
    name = str(reference)
    if reference.registry:
        return _from_registry(reference, name, client, log)
    directory = settings.images_dir / reference.repository / (reference.tag or "latest")
    if reference.repository == base_image.NAME and (OciLayout.is_layout(directory) or client is None):
        return _from_layout(base_image.ensure_base_image(settings, tag=directory.name, log=log), reference)
    if OciLayout.is_layout(directory):
        return _from_layout(directory, reference)
    if client is not None:
        there = ImageReference(
            registry=client.host, repository=reference.repository, tag=reference.tag or "latest",
            digest=reference.digest,
        )  # fmt: skip
        if client.digest_of(there.repository, there.digest or there.tag) is not None:
            return _from_registry(there, name, client, log)
        if reference.repository == base_image.NAME:
            return _from_layout(base_image.ensure_base_image(settings, tag=directory.name, log=log), reference)
    raise BuildError(
        f"The base image {reference} is neither in {settings.images_dir} nor in a registry that was named.",
        "Name it with --base DIR or --base REGISTRY/NAME:TAG.",
    )


def complete_base(base: BaseImage, settings: Settings, client: RegistryClient | None, log: Log) -> Path:
    """A layout with all of a base's layers; those of a registry's image are fetched.

    Raises
    ------
    RegistryError
        When the registry does not give them.
    """
    if base.layout is not None:
        return base.layout.path
    path = settings.images_dir / base.reference.repository / (base.reference.tag or base.image.digest[7:19])
    layout = OciLayout.create(path)
    log(f"fetching the layers of {base.reference}")
    with layout.locked(), _client_of(base.reference, client) as source:
        for item in (base.image.manifest.config, *base.image.manifest.layers):
            if not layout.has(item):
                with atomic_file(layout.blob_path(item.digest)) as file:
                    source.fetch_blob(base.reference.repository, item, file)
        layout.set_image(base.image.manifest, path.name)
    return path


def _from_layout(path: Path, reference: ImageReference) -> BaseImage:
    layout = OciLayout(path)
    return BaseImage(image=layout.image(), layout=layout, reference=reference, name=str(reference))


def _from_registry(reference: ImageReference, name: str, client: RegistryClient | None, log: Log) -> BaseImage:
    with _client_of(reference, client) as source:
        return _fetch(reference, name, source, log)


@contextlib.contextmanager
def _client_of(reference: ImageReference, client: RegistryClient | None) -> Iterator[RegistryClient]:
    """`client` when it is that registry's, else a new one with the credentials that this machine has."""
    if client is not None and client.host == reference.registry:
        yield client
        return
    credentials = find_credentials(reference.registry, reference.repository)
    with RegistryClient(reference.registry, credentials=credentials) as other:
        yield other


def _fetch(reference: ImageReference, name: str, client: RegistryClient, log: Log) -> BaseImage:
    """Read a base's manifest and configuration; its layers stay where they are."""
    log(f"base image {reference} from registry {client.host}")
    descriptor, data = client.manifest(reference.repository, reference.digest or reference.tag or "latest")
    if descriptor.media_type in INDEXES:
        chosen = _for_this_machine(data, reference)
        descriptor, data = client.manifest(reference.repository, chosen)
    manifest = Manifest.parse(data)
    config = ImageConfig.parse(client.read_blob(reference.repository, manifest.config))
    if len(config.diff_ids) != len(manifest.layers):
        raise BuildError(f"The base image {reference} has {len(manifest.layers)} layers and "
                         f"{len(config.diff_ids)} diff ids.", "Choose another base with --base.")  # fmt: skip
    image = Image(descriptor=descriptor, manifest=manifest, config=config)
    return BaseImage(image=image, layout=None, reference=reference, name=name)


def _for_this_machine(data: bytes, reference: ImageReference) -> str:
    """The digest of an index's manifest for Linux on this machine's processor."""
    architecture = base_image.architecture()
    for entry in parse_document(data, f"index of {reference}").get("manifests") or []:
        platform = entry.get("platform") if isinstance(entry, dict) else None
        if isinstance(platform, dict) and (platform.get("os"), platform.get("architecture")) == ("linux", architecture):
            return Descriptor.from_json(entry).digest
    raise BuildError(f"The base image {reference} has no variant for linux/{architecture}.",
                     "Choose another base with --base.")  # fmt: skip
