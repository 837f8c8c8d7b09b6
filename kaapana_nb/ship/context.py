"""Build contexts: which files a COPY line brings, and which wheels the pip line asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kaapana_nb.errors import BuildError
from kaapana_nb.ship.dockerfile import OTHER_BUILDER, Copy, Dockerfile, PipInstall
from kaapana_nb.ship.wheels import Log, TargetPython, Wheel, collect_wheels, hash_file, read_pins

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_MAX_CONTEXT = 4 << 30
_MAX_FILES = 20_000


def copied_files(step: Copy, context: Path) -> dict[str, Path]:
    """Path in the image (without a leading slash) -> file of a COPY line.

    Raises
    ------
    BuildError
        When a source is missing, a link, or outside the context; or when it is too much.
    """
    return dict(_copied(step, context))


def _copied(step: Copy, context: Path) -> Iterator[tuple[str, Path]]:
    """(path in the image, file) of a COPY line; links and anything outside the context are refused."""
    if (context / ".dockerignore").exists():
        raise BuildError(f"{context} has a .dockerignore, which the layers builder does not read.", OTHER_BUILDER)
    target = step.target.strip("/")
    count, size = 0, 0
    for name in step.sources:
        source = context / name
        if not source.resolve().is_relative_to(context.resolve()) or not source.exists():
            raise BuildError(f"COPY names {name!r:.160}, which is not in the context {context}.",
                             "Export the notebook again.")  # fmt: skip
        is_directory = source.is_dir()
        for path in sorted(source.rglob("*")) if is_directory else [source]:
            if path.is_symlink():
                raise BuildError(f"{path} is a symbolic link; a file was expected in a build context.",
                                 "Replace the link by the file itself.")  # fmt: skip
            if not path.is_file():
                continue
            count, size = count + 1, size + path.stat().st_size
            if count > _MAX_FILES or size > _MAX_CONTEXT:
                raise BuildError(f"COPY {name!r:.160} brings more than {_MAX_FILES} files or {_MAX_CONTEXT >> 30} GiB.",
                                 "Leave data out of the build context.")  # fmt: skip
            if is_directory:
                inside = path.relative_to(source).as_posix()
            else:
                inside = path.name if step.into_directory or not target else ""
            yield "/".join(part for part in (target, inside) if part), path


def step_wheels(
    step: PipInstall,
    files: Mapping[str, Path],
    target: TargetPython,
    *,
    wheels_dir: Path,
    wheelhouse: Path | None,
    log: Log,
) -> list[Wheel]:
    """The wheels of a pip line, in the order of its requirements file.

    Parameters
    ----------
    files
        What COPY lines before it brought, by absolute path in the image.

    Raises
    ------
    BuildError
        When the requirements file or a wheel that it names by path was not copied, or a wheel cannot be had.
    """
    source = files.get(step.requirements)
    if source is None:
        raise BuildError(
            f"The pip line reads {step.requirements}, which no COPY line before it brings.",
            "Export the notebook again.",
        )
    pins = read_pins(source.read_text(encoding="utf-8", errors="replace"), target, source.name)
    wheels = collect_wheels(pins, target, wheels_dir=wheels_dir, wheelhouse=wheelhouse, log=log)
    for pin in pins:
        if pin.file:
            path = files.get(pin.file)
            if path is None:
                raise BuildError(
                    f"{source.name} names {pin.file}, which no COPY line before it brings.",
                    "Export the notebook again.",
                )
            wheels[pin.name] = Wheel(
                name=pin.name, version=pin.version, path=path, sha256=hash_file(path), container_path=pin.file
            )
    return [wheels[pin.name] for pin in pins]


def context_wheels(
    dockerfile: Dockerfile, context: Path, target: TargetPython, *, wheels_dir: Path, wheelhouse: Path | None, log: Log
) -> dict[PipInstall, list[Wheel]]:
    """The wheels of each pip line of a Dockerfile."""
    files: dict[str, Path] = {}
    wheels: dict[PipInstall, list[Wheel]] = {}
    for _, step in dockerfile.steps:
        if isinstance(step, Copy):
            files.update({f"/{place}": path for place, path in copied_files(step, context).items()})
        elif isinstance(step, PipInstall):
            wheels[step] = step_wheels(step, files, target, wheels_dir=wheels_dir, wheelhouse=wheelhouse, log=log)
    return wheels
