"""The default builder: an image put together in pure Python, without daemon, root or namespaces.

It reads the same Dockerfile that buildah would; a RUN line it does not execute but does: the wheels of
the pip line are unpacked into layers. Large wheels get a layer each, so that a change of one package
moves that package only.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kaapana_nb.clients.oci import CONFIG, Descriptor, ImageConfig, Manifest
from kaapana_nb.errors import BuildError
from kaapana_nb.ship.builders import BuildRequest, Log, base_labels, image_annotations
from kaapana_nb.ship.context import copied_files
from kaapana_nb.ship.dockerfile import OTHER_BUILDER, Copy, Dockerfile, PipInstall, RunLine
from kaapana_nb.ship.layers import (
    SHEBANG,
    SYSTEM_DIRECTORIES,
    Entry,
    Layer,
    LayerCache,
    directories,
    layer_key,
    store_layer,
)
from kaapana_nb.ship.wheels import Wheel, hash_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

EPOCH = "1970-01-01T00:00:00Z"
LABEL_CREATED = "org.opencontainers.image.created"
_LARGE_WHEEL = 4 << 20  # bytes of a wheel that gets a layer of its own


@dataclass(slots=True)
class _Progress:
    """What the steps so far have made."""

    layers: list[tuple[Layer, str]] = field(default_factory=list)
    made: set[str] = field(default_factory=set)


RunsLines = Callable[["RunLine", "BuildRequest", LayerCache, list[tuple["Layer", str]]], "Layer"]


class LayersBuilder:
    """See the module."""

    name = "layers"
    run_line: RunsLines | None = None
    """What runs a line that is not ours, given the layers so far; this builder runs none."""

    def unusable(self) -> str:
        """Never: it needs Python only."""
        return ""

    def build(self, request: BuildRequest) -> Manifest:
        """Put layers and configuration into the layout."""
        cache = LayerCache(request.settings.images_dir / ".layers")
        cache.prune()
        progress = _Progress()
        for text, step in request.dockerfile.steps:
            if isinstance(step, Copy):
                _copy(step, text, request, cache, progress)
            elif isinstance(step, PipInstall):
                _wheel_layers(request.wheels[step], step.target, text, request, cache, progress)
            elif isinstance(step, RunLine):
                if self.run_line is None:
                    raise BuildError(f"The layers builder does not run {text!r:.120}.", OTHER_BUILDER)
                progress.layers.append((self.run_line(step, request, cache, progress.layers), text))
            else:
                _work_dir(step.path, text, cache, progress)
        base = request.base
        if base.layout is not None:
            for descriptor in base.image.manifest.layers:
                request.layout.copy_from(base.layout, descriptor)
        for layer, _ in progress.layers:
            store_layer(request.layout, layer)
        config = image_config(request.dockerfile, base.image.config, base_labels(request), progress.layers)
        stored = request.layout.add(config.to_bytes(), CONFIG)
        layers = (*map(_plain, base.image.manifest.layers), *(layer.descriptor for layer, _ in progress.layers))
        return Manifest(config=stored, layers=layers, annotations=image_annotations(request))


def _plain(descriptor: Descriptor) -> Descriptor:
    """A base's layer in OCI's media types, which Docker's differ from in name only."""
    media_type = descriptor.media_type.replace(
        "application/vnd.docker.image.rootfs.diff.tar.gzip", "application/vnd.oci.image.layer.v1.tar+gzip"
    )
    return Descriptor(media_type=media_type, digest=descriptor.digest, size=descriptor.size)


def image_config(
    dockerfile: Dockerfile, base: ImageConfig, own_labels: Mapping[str, str], layers: list[tuple[Layer, str]]
) -> ImageConfig:
    """The configuration: the base's, overlaid with the Dockerfile's."""
    environ = {**base.environ, **dockerfile.env}
    labels = {**base.labels, **dockerfile.labels, **own_labels}
    created = dockerfile.labels.get(LABEL_CREATED, EPOCH)
    cmd = dockerfile.cmd
    if cmd is None:
        cmd = base.cmd if dockerfile.entrypoint is None else ()  # ENTRYPOINT resets an inherited CMD
    history = base.history
    if sum(not entry.get("empty_layer") for entry in history) != len(base.diff_ids):
        history = tuple({"created": EPOCH, "created_by": "base image"} for _ in base.diff_ids)
    other: dict[str, Any] = dict(base.other)
    if dockerfile.healthcheck is not None:
        other["Healthcheck"] = dockerfile.healthcheck
    return ImageConfig(
        architecture=base.architecture,
        os=base.os,
        created=created,
        user=dockerfile.user or base.user,
        env=tuple(f"{name}={value}" for name, value in environ.items()),
        entrypoint=base.entrypoint if dockerfile.entrypoint is None else dockerfile.entrypoint,
        cmd=cmd,
        working_dir=dockerfile.working_dir if dockerfile.working_dir != "/" else base.working_dir,
        labels=labels,
        exposed_ports=tuple(sorted({*base.exposed_ports, *dockerfile.exposed_ports})),
        diff_ids=(*base.diff_ids, *(layer.diff_id for layer, _ in layers)),
        history=(*history, *({"created": created, "created_by": text} for _, text in layers)),
        other=other,
    )


def _work_dir(path: str, text: str, cache: LayerCache, progress: _Progress) -> None:
    place = path.strip("/")
    if not place or place in SYSTEM_DIRECTORIES or place in progress.made:
        return
    entries = list(directories([f"{place}/x"]))
    key = layer_key("directories", [entry.path for entry in entries])
    layer, _ = cache.make(key, lambda: entries)
    progress.layers.append((layer, text))
    progress.made.update(entry.path for entry in entries)


def _copy(step: Copy, text: str, request: BuildRequest, cache: LayerCache, progress: _Progress) -> None:
    files = copied_files(step, request.context)
    described = [(place, 0o755 if path.stat().st_mode & 0o100 else 0o644, path) for place, path in files.items()]
    key = layer_key("copy", [(place, mode, hash_file(path)) for place, mode, path in described])
    entries = [Entry(path=place, mode=mode, content=path) for place, mode, path in described]
    parents = list(directories(entry.path for entry in entries))
    layer, cached = cache.make(key, lambda: [*parents, *entries])
    progress.made.update(entry.path for entry in parents)
    progress.layers.append((layer, text))
    request.log(f"{text}: {len(files)} files{', unchanged' if cached else ''}")


def _wheel_layers(
    wheels: Sequence[Wheel], target: str, text: str, request: BuildRequest, cache: LayerCache, progress: _Progress
) -> None:
    described = [(wheel.name, wheel.sha256, wheel.container_path) for wheel in wheels]
    plan_key = layer_key("plan", SHEBANG, target, described)
    layers = _planned(cache, plan_key)
    unchanged = layers is not None
    if layers is None:
        contents = _contents(_groups(wheels), wheels, target, request.log)
        keys = {name: key for name, (key, _) in contents.items()}
        with ThreadPoolExecutor(max_workers=2) as pool:
            made = pool.map(lambda item: cache.make(item[0], lambda: item[1])[0], contents.values())
            layers = dict(zip(contents, made, strict=True))
        cache.remember(plan_key, keys)
    progress.layers.extend((layer, f"{text} # {name}") for name, layer in layers.items())
    request.log(f"{len(wheels)} packages in {len(layers)} layers{', unchanged' if unchanged else ''}")


def _planned(cache: LayerCache, plan_key: str) -> dict[str, Layer] | None:
    """The layers of a requirements file that was built before, unless one of them is gone."""
    plan = cache.remembered(plan_key)
    layers = {name: cache.get(key) for name, key in plan.items()}
    found = {name: layer for name, layer in layers.items() if layer is not None}
    return found if plan and len(found) == len(plan) else None


def _groups(wheels: Sequence[Wheel]) -> dict[str, list[Wheel]]:
    """Which wheels share a layer: what changes together, the most stable first."""
    groups: dict[str, list[Wheel]] = {}
    small: list[Wheel] = []
    for wheel in sorted(wheels, key=lambda item: item.name):
        if not wheel.container_path and wheel.path.stat().st_size >= _LARGE_WHEEL:
            groups[f"{wheel.name} {wheel.version}"] = [wheel]
        elif not wheel.container_path:
            small.append(wheel)
    if small:
        groups[f"{len(small)} packages"] = small
    if own := [wheel for wheel in wheels if wheel.container_path]:
        groups["packages of the context"] = own
    return groups


def _contents(
    groups: dict[str, list[Wheel]], wheels: Sequence[Wheel], target: str, log: Log
) -> dict[str, tuple[str, list[Entry]]]:
    """Key and entries of each group's layer.

    Of a file that several packages bring, the last package's is kept, as pip does.
    """
    from kaapana_nb.ship.unpack import wheel_entries

    entries = {wheel.name: wheel_entries(wheel, target) for wheel in wheels}
    owner = {entry.path: wheel.name for wheel in wheels for entry in entries[wheel.name]}
    contents: dict[str, tuple[str, list[Entry]]] = {}
    lost = 0
    for name, members in groups.items():
        own = [entry for wheel in members for entry in entries[wheel.name] if owner[entry.path] == wheel.name]
        dropped = sorted(
            entry.path for wheel in members for entry in entries[wheel.name] if owner[entry.path] != wheel.name
        )
        lost += len(dropped)
        described = [(wheel.name, wheel.sha256, wheel.container_path) for wheel in members]
        key = layer_key("wheels", SHEBANG, target, described, dropped)
        contents[name] = (key, [*directories(entry.path for entry in own), *own])
    if lost:
        log(f"{lost} files are in several packages; the last package's are kept")
    return contents
