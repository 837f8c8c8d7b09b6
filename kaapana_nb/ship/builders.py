"""Builders: what turns a Dockerfile and its context into an image, and how one is chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from kaapana_nb.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from kaapana_nb.clients.layout import OciLayout
    from kaapana_nb.clients.oci import Manifest
    from kaapana_nb.settings import Settings
    from kaapana_nb.ship.bases import BaseImage
    from kaapana_nb.ship.dockerfile import Dockerfile

Log = Callable[[str], None]

ANNOTATION_BASE_NAME = "org.opencontainers.image.base.name"
ANNOTATION_BASE_DIGEST = "org.opencontainers.image.base.digest"
ANNOTATION_BASE_LAYERS = "io.kaapana-nb.base-layers"
"""How many layers, from the lowest up, are the base's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """What a builder gets: the context with its parsed Dockerfile, the base, and where the image goes."""

    context: Path
    dockerfile: Dockerfile
    base: BaseImage
    layout: OciLayout
    settings: Settings
    wheelhouse: Path | None
    log: Log


class Builder(Protocol):
    """Builds images. To add one: write this class in a module of its own and register it in `BUILDERS`."""

    name: str

    def unusable(self) -> str:
        """Why it cannot be used on this machine; empty when it can."""

    def build(self, request: BuildRequest) -> Manifest:
        """Put the image's own blobs into ``request.layout`` and give its manifest, not yet stored."""


def choose_builder(name: str, log: Log) -> Builder:
    """The builder of that name; ``auto`` takes the first that can be used, and says why.

    Raises
    ------
    UsageError
        When there is none of that name, or this machine cannot use it.
    """
    registered = _builders()
    if name == "auto":
        for candidate in registered.values():
            reason = candidate.unusable()
            if not reason:
                log(f"builder {candidate.name}")
                return candidate
            log(f"builder {candidate.name} cannot be used: {reason}")
        name = next(iter(registered))
    if name not in registered:
        raise UsageError(f"There is no builder {name!r:.60}.", f"Choose one of auto, {', '.join(registered)}.")
    if reason := registered[name].unusable():
        raise UsageError(f"The builder {name} cannot be used here: {reason}.", "Leave --builder out.")
    return registered[name]


def _builders() -> dict[str, Builder]:
    from kaapana_nb.ship.layers_builder import LayersBuilder

    return {found.name: found for found in (LayersBuilder(),)}
