"""Builders: what turns a Dockerfile and its context into an image, and how one is chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from kaapana_nb.errors import BuildError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from kaapana_nb.clients.layout import OciLayout
    from kaapana_nb.clients.oci import Manifest
    from kaapana_nb.clients.registry import RegistryClient
    from kaapana_nb.settings import Settings
    from kaapana_nb.ship.bases import BaseImage
    from kaapana_nb.ship.dockerfile import Dockerfile, PipInstall
    from kaapana_nb.ship.wheels import Wheel

Log = Callable[[str], None]

_OCI = "org.opencontainers.image."
ANNOTATION_BASE_NAME = "org.opencontainers.image.base.name"
ANNOTATION_BASE_DIGEST = "org.opencontainers.image.base.digest"
ANNOTATION_BASE_LAYERS = "io.kaapana-nb.base-layers"
"""How many layers, from the lowest up, are the base's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """What a builder gets: the context with its parsed Dockerfile, the base, and where the image goes.

    `wheels` are on disk, for each pip line; none for a Dockerfile with unknown lines.
    """

    context: Path
    dockerfile: Dockerfile
    base: BaseImage
    layout: OciLayout
    settings: Settings
    wheels: Mapping[PipInstall, Sequence[Wheel]]
    wheelhouse: Path | None
    client: RegistryClient | None
    log: Log


class Builder(Protocol):
    """Builds images. To add one: write this class in a module of its own and register it in `BUILDERS`."""

    name: str

    def unusable(self) -> str:
        """Why it cannot be used on this machine; empty when it can."""

    def build(self, request: BuildRequest) -> Manifest:
        """Put the image's own blobs into ``request.layout`` and give its manifest, not yet stored."""


def choose_builder(name: str, dockerfile: Dockerfile, settings: Settings, log: Log) -> Builder:
    """The builder of that name. ``auto`` takes layers, or the first that can run a Dockerfile's unknown lines.

    Raises
    ------
    UsageError
        When there is none of that name, or this machine cannot use it.
    BuildError
        When the Dockerfile needs a builder that runs lines, and this machine has none.
    """
    registered = _builders(settings)
    if name in registered:
        if reason := registered[name].unusable():
            raise UsageError(f"The builder {name} cannot be used here: {reason}.", "Leave --builder out.")
        if name == "layers" and dockerfile.refusal is not None:
            raise dockerfile.refusal
        return registered[name]
    if name != "auto":
        raise UsageError(f"There is no builder {name!r:.60}.", f"Choose one of auto, {', '.join(registered)}.")
    if dockerfile.refusal is None:
        log("builder layers: it knows every line of the Dockerfile")
        return registered["layers"]
    log(f"builder layers cannot be used: {dockerfile.refusal.problem}")
    reasons = []
    for candidate in [item for item in registered.values() if item.name != "layers"]:
        reason = candidate.unusable()
        if candidate.name == "proot" and not dockerfile.only_runs:
            reason = reason or "it takes no other unknown lines than RUN"
        if not reason:
            log(f"builder {candidate.name} runs the Dockerfile's lines")
            return candidate
        log(f"builder {candidate.name} cannot be used: {reason}")
        reasons.append(f"{candidate.name}: {reason}")
    raise BuildError(
        f"{dockerfile.refusal.problem} No builder that runs lines works here ({'; '.join(reasons)}).", _POD
    )


_POD = (
    "Use only lines that an export writes; or install proot, for RUN lines; or build where buildah works: as root, or "
    "in a pod with securityContext.seccompProfile.type Unconfined, allowPrivilegeEscalation true and entries in "
    "/etc/subuid."
)


def base_labels(request: BuildRequest) -> dict[str, str]:
    """What an image says of its base (OCI image specification, "Pre-Defined Annotation Keys")."""
    return {ANNOTATION_BASE_NAME: request.base.name, ANNOTATION_BASE_DIGEST: request.base.image.digest}


def image_annotations(request: BuildRequest) -> dict[str, str]:
    """Annotations of the manifest: the base, and the Dockerfile's labels with OCI's own names."""
    return {
        **{name: value for name, value in request.dockerfile.labels.items() if name.startswith(_OCI)},
        **base_labels(request),
        ANNOTATION_BASE_LAYERS: str(len(request.base.image.manifest.layers)),
    }


def _builders(settings: Settings) -> dict[str, Builder]:
    from kaapana_nb.ship.docker_builder import DockerBuilder
    from kaapana_nb.ship.engine_builder import EngineBuilder
    from kaapana_nb.ship.layers_builder import LayersBuilder
    from kaapana_nb.ship.proot_builder import ProotBuilder

    engines = [EngineBuilder(name, settings.containers_dir) for name in ("buildah", "podman")]
    builders: list[Builder] = [LayersBuilder(), *engines, DockerBuilder(), ProotBuilder()]
    return {found.name: found for found in builders}
