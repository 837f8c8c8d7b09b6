"""Build a processing container's image, push it, and say exactly what came out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kaapana_nb.clients.credentials import Credentials, find_credentials
from kaapana_nb.clients.layout import OciLayout
from kaapana_nb.clients.referrers import attach
from kaapana_nb.clients.registry import RegistryClient
from kaapana_nb.contract.profiles import PROFILES, profile
from kaapana_nb.errors import BuildError, UsageError
from kaapana_nb.reference import ImageReference
from kaapana_nb.ship.bases import BaseImage, find_base
from kaapana_nb.ship.builders import ANNOTATION_BASE_LAYERS, ANNOTATION_BASE_NAME, BuildRequest, choose_builder
from kaapana_nb.ship.context import context_wheels
from kaapana_nb.ship.dockerfile import Dockerfile, PipInstall, read_dockerfile
from kaapana_nb.ship.sbom import MEDIA_TYPE as SBOM_TYPE
from kaapana_nb.ship.sbom import write_sbom
from kaapana_nb.ship.wheels import TargetPython, Wheel

if TYPE_CHECKING:
    from pathlib import Path

    from kaapana_nb.clients.oci import Descriptor
    from kaapana_nb.settings import Settings

Log = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltImage:
    """An image that was built.

    Attributes
    ----------
    name
        The image's name, from its label ``IMAGE``.
    reference
        Where it is: local (no registry, no digest), or pushed, pinned by digest.
    digest
        Digest of its manifest.
    layout
        OCI layout that holds it; without the base's layers when those are in a registry only.
    bytes_uploaded
        What a push sent.
    seconds
        Wall time of the build, and of the push when there was one.
    builder
        Which builder made it.
    base
        Where layers that `layout` lacks are.
    sbom
        Software bill of materials (CycloneDX JSON), or ``None`` for a Dockerfile whose packages are not known.
    """

    name: str
    reference: ImageReference
    digest: str
    layout: Path
    bytes_uploaded: int = 0
    seconds: float = 0.0
    builder: str
    base: ImageReference
    sbom: Path | None = None


def find_contexts(export_dir: Path) -> list[Path]:
    """The build contexts of an export: ``processing-containers/*``, or `export_dir` itself if it has a Dockerfile.

    Raises
    ------
    BuildError
        When there is none.
    """
    if (export_dir / "Dockerfile").is_file():
        return [export_dir]
    found = sorted(path.parent for path in export_dir.glob("processing-containers/*/Dockerfile"))
    if not found:
        raise BuildError(
            f"{export_dir} has no processing-containers/<name>/Dockerfile.",
            f"Write one: kaapana-nb export NOTEBOOK -o {export_dir}",
        )
    return found


def image_name(dockerfile: Dockerfile, context: Path, tag: str = "") -> ImageReference:
    """Name and tag of an image: labels ``IMAGE`` and ``VERSION``, or the directory's name and ``latest``.

    Raises
    ------
    UsageError
        When a label is no valid name or tag.
    """
    name = dockerfile.labels.get("IMAGE") or context.absolute().name
    return ImageReference(repository=name, tag=tag or dockerfile.labels.get("VERSION") or "latest")


def platform_tag(dockerfile: Dockerfile, platform_version: str) -> str:
    """The tag by which a platform of that version looks for the image.

    The profile is the one whose label keeps the platform's build system from building the image.
    """
    found = [item for item in PROFILES.values() if item.ignore_label in dockerfile.labels]
    chosen = found[0] if found else profile()
    return chosen.image_tag.format(
        abbr=chosen.platform_abbr, platform_version=platform_version,
        version=dockerfile.labels.get("VERSION") or "latest",
    )  # fmt: skip


def build_image(
    context_dir: Path,
    *,
    settings: Settings,
    builder: str = "auto",
    base: str | None = None,
    wheelhouse: Path | None = None,
    tag: str = "",
    client: RegistryClient | None = None,
    log: Log = lambda _: None,
) -> BuiltImage:
    """Build one processing container into an OCI layout, ``<images>/<name>/<tag>``.

    Parameters
    ----------
    context_dir
        Directory with ``Dockerfile`` and ``files/``.
    base
        A layout's directory or a reference, instead of the Dockerfile's FROM.
    wheelhouse
        Directory with all wheels; then nothing is downloaded.
    client
        The registry that will be pushed to: its copy of the base counts, and is not moved.

    Raises
    ------
    BuildError
        When the Dockerfile, the base or a wheel is not what it must be.
    """
    started = time.perf_counter()
    dockerfile = read_dockerfile(context_dir, lenient=True)
    reference = image_name(dockerfile, context_dir, tag)
    chosen = choose_builder(builder, dockerfile, settings, log)
    found = find_base(dockerfile.base, base=base, settings=settings, client=client, log=log)
    whole = dockerfile.refusal is None or chosen.name == "proot"  # the engines do the other Dockerfiles' pip lines
    wheels = _wheels(dockerfile, context_dir, found, settings, wheelhouse, log) if whole else {}
    path = settings.images_dir / reference.repository / reference.tag
    layout = OciLayout.create(path)
    request = BuildRequest(
        context=context_dir, dockerfile=dockerfile, base=found, layout=layout, settings=settings,
        wheels=wheels, wheelhouse=wheelhouse, client=client, log=log,
    )  # fmt: skip
    with layout.locked():
        manifest = chosen.build(request)
        descriptor = layout.set_image(manifest, reference.tag)
        sbom = _sbom(request, reference)
    return BuiltImage(
        name=reference.name,
        reference=reference,
        digest=descriptor.digest,
        layout=path,
        seconds=time.perf_counter() - started,
        builder=chosen.name,
        base=found.reference,
        sbom=sbom,
    )


def _wheels(
    dockerfile: Dockerfile, context: Path, base: BaseImage, settings: Settings, wheelhouse: Path | None, log: Log
) -> dict[PipInstall, list[Wheel]]:
    if not any(isinstance(step, PipInstall) for _, step in dockerfile.steps):
        return {}
    target = TargetPython.of(base.image.config, base.name)
    return context_wheels(dockerfile, context, target, wheels_dir=settings.wheels_dir, wheelhouse=wheelhouse, log=log)


def _sbom(request: BuildRequest, reference: ImageReference) -> Path | None:
    if request.dockerfile.refusal is not None:
        return None
    return write_sbom(
        request.settings.images_dir / ".sboms", reference.repository, reference.tag,
        [wheel for wheels in request.wheels.values() for wheel in wheels], request.base.name,
        request.base.image.digest,
    )  # fmt: skip


def push_image(
    image: BuiltImage, reference: ImageReference, *, client: RegistryClient, log: Log = lambda _: None
) -> BuiltImage:
    """Bring an image into a registry, layers first, and name it there last.

    Layers that the repository has stay; the base's are mounted from the base's repository when that is in
    the same registry; the rest is sent. A push that broke can be repeated: what arrived is not sent again.

    Raises
    ------
    RegistryError
        When the registry refuses, or does not confirm the digest.
    """
    if reference.registry != client.host:
        raise UsageError(f"{reference} is not in registry {client.host}.", "Name the client's registry.")
    started = time.perf_counter()
    layout = OciLayout(image.layout)
    found = layout.image()
    repository = reference.repository
    base = ImageReference.parse(found.manifest.annotations.get(ANNOTATION_BASE_NAME, str(image.base)))
    base_repository = image.base.repository if image.base.registry == client.host else base.repository
    base_layers = _base_layers(found.manifest.annotations)

    def move(item: tuple[int, Descriptor]) -> tuple[int, str]:
        position, descriptor = item
        here = layout.blob_path(descriptor.digest) if layout.has(descriptor) else None
        mount_from = base_repository if position < base_layers and base_repository != repository else ""
        done = client.upload_blob(repository, descriptor, here, mount_from)
        how = "mounted" if done.mounted else "sent" if done.bytes_sent else "already there"
        return done.bytes_sent, f"{descriptor.digest[7:19]} {descriptor.size / 1e6:.1f} MB {how}"

    sent = 0
    with ThreadPoolExecutor(max_workers=4) as pool:
        blobs = (*found.manifest.layers, found.manifest.config)
        for size, line in pool.map(move, enumerate(blobs)):
            sent += size
            log(line)
    data = layout.read(found.descriptor)
    tag = reference.tag or image.reference.tag
    if client.digest_of(repository, tag) != image.digest:
        sent += len(data)
        client.put_manifest(repository, tag, data, found.manifest.media_type)
    if image.sbom is not None:
        sent += attach(client, repository, found.descriptor, image.sbom.read_bytes(), SBOM_TYPE)
    pushed = replace(reference, tag=tag, digest=image.digest)
    log(f"pushed {pushed}, {sent} bytes sent")
    return replace(image, reference=pushed, bytes_uploaded=sent, seconds=image.seconds + time.perf_counter() - started)


def _base_layers(annotations: Mapping[str, str]) -> int:
    text = annotations.get(ANNOTATION_BASE_LAYERS, "0")
    return int(text) if text.isascii() and text.isdigit() else 0


def registry_client(
    registry: str,
    repository: str,
    *,
    creds_file: Path | None = None,
    credentials: Credentials | None = None,
    plain_http: bool | None = None,
    ca_file: Path | None = None,
) -> RegistryClient:
    """A client for pushing `repository`, with the credentials that this machine has for it."""
    found = credentials or find_credentials(registry, repository, file=creds_file)
    return RegistryClient(registry, credentials=found, plain_http=plain_http, ca_file=ca_file)


def push_target(registry: str, name: ImageReference) -> ImageReference:
    """Where `name` goes: `registry` is ``host[:port]``, with a path if the registry has projects.

    Raises
    ------
    UsageError
        When `registry` is no registry's address.
    """
    host, _, path = registry.removesuffix("/").partition("/")
    remedy = "Write it as host[:port] or host[:port]/project, for example localhost:5000."
    if "://" in registry or not host or not ("." in host or ":" in host or host == "localhost"):
        raise UsageError(f"--push {registry!r:.120} is no registry's address.", remedy)
    repository = f"{path}/{name.repository}" if path else name.repository
    return ImageReference(registry=host, repository=repository, tag=name.tag)
