"""One file that holds an image, for platforms that no registry reaches.

Docker, podman, skopeo and containerd load it, and the platform's ``import-container`` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kaapana_nb.clients.archives import pack_layout
from kaapana_nb.clients.layout import OciLayout
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
    complete_layout(image, client)
    tag = image.reference.tag or "latest"
    pack_layout(OciLayout(image.layout), str(image.reference.with_tag(tag)), tag, file)
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
