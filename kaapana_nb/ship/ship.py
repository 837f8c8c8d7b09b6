"""The whole line: a notebook becomes a verified, pushed image, stopping at the first thing that is wrong.

What can be known before the slow steps is known before them: the notebook, its parameters, its privacy, the batch,
the base image and the registry with its password are checked first, in about a second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from kaapana_nb.clients.containers import find_runner
from kaapana_nb.clients.registry import RegistryClient
from kaapana_nb.contract.profiles import Profile
from kaapana_nb.data.batch import Batch
from kaapana_nb.errors import ParityError
from kaapana_nb.reference import ImageReference
from kaapana_nb.settings import Settings
from kaapana_nb.ship.archive import write_archive
from kaapana_nb.ship.build import BuiltImage, build_image, push_image
from kaapana_nb.ship.compare import ParityReport
from kaapana_nb.ship.export import ExtensionFiles, check_directory, check_target, export_notebook, write_extension
from kaapana_nb.ship.guard import guard
from kaapana_nb.ship.parity import parity_proof, write_parity
from kaapana_nb.ship.verify import FAILED_BOTH, read_export, verify_image
from kaapana_nb.ship.wheelhouse import wheelhouse_of
from kaapana_nb.work.execute import check_parameters
from kaapana_nb.work.notebook import NotebookSpec


class StepLog(Protocol):
    """Where a step says what it does."""

    def __call__(self, line: str) -> None: ...


Step = Callable[[str], AbstractContextManager[StepLog]]
"""Begins a step: ``with step("export") as log``. The command line numbers and times them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where an image goes: a registry, by a client that holds its credentials, or an archive."""

    reference: ImageReference | None = None
    client: RegistryClient | None = None
    archive: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """What came out of the line."""

    extension: ExtensionFiles
    files: tuple[Path, ...]
    image: BuiltImage
    parity: ParityReport
    archive: Path | None = None


def ship_notebook(
    notebook: Path,
    batch: Batch,
    directory: Path,
    destination: Destination,
    *,
    profile: Profile,
    settings: Settings,
    step: Step,
    parameters: Mapping[str, str] | None = None,
    allowed: frozenset[str] = frozenset(),
    force: bool = False,
    base: str | None = None,
    script: bool = False,
    allow_failed: bool = False,
) -> Shipped:
    """Check, export, build, verify, push.

    The image is pushed only after notebook and container gave the same results, and, unless `allow_failed`, for
    every series.

    Raises
    ------
    KaapanaNbError
        Whatever is wrong first; nothing after it was done.
    """
    with step("check") as log:
        spec = NotebookSpec.read(notebook)
        check_parameters(spec, parameters or {})
        check_directory(directory, spec.name)
        if destination.archive is not None:
            check_target(destination.archive, "--archive")
        if destination.client is not None and destination.reference is not None:
            destination.client.probe(push_to=destination.reference.repository)
            log(f"registry {destination.reference.registry} takes {destination.reference.repository}")
        extension = export_notebook(notebook, profile, script=script)
        guarded = guard(extension, batch=batch, allowed=allowed, notebook=notebook)
        extension = replace(extension, allowed=guarded.fingerprints)
        log(f"{notebook.name}: algorithm {extension.name} {extension.version}, {len(batch)} series, nothing private")
        for line in (*extension.warnings, *guarded.lines()):
            log(line)
        runner = find_runner(settings, log)
    with step("export") as log:
        files = write_extension(extension, directory, force=force)
        for path in files:
            log(f"{path.relative_to(directory)} ({path.stat().st_size} bytes)")
    exported = read_export(directory)
    with step("build") as log:
        image = build_image(
            exported.context,
            settings=settings,
            base=base,
            wheelhouse=wheelhouse_of(directory),
            client=destination.client,
            log=log,
        )
        log(f"{image.reference} {image.digest} by builder {image.builder}")
    with step("verify") as log:
        parity = verify_image(exported, image, batch, profile=profile, runner=runner, parameters=parameters, log=log)
        for line in parity.table().splitlines():
            log(line)
        if not parity.equal:
            raise ParityError(
                f"Notebook and container differ in {len(parity.differences)} of {len(parity.elements)} outputs.",
                "The table above says where. Nothing was pushed.",
            )
        failed = [row for row in parity.elements if row.difference == FAILED_BOTH]
        if failed and not allow_failed:
            raise ParityError(
                f"{len(failed)} of {len(batch)} series failed, in the notebook and in the container alike.",
                "Mend them, leave them out of the batch, or ship all the same with --allow-failed. Nothing was pushed.",
            )
        proof = parity_proof(exported, image, batch, parity, runner=runner.name)
        log(f"{write_parity(directory, exported, proof).relative_to(directory)} holds the proof")
    archive = None
    if destination.client is not None and destination.reference is not None:
        with step("push") as log:
            image = push_image(image, destination.reference, client=destination.client, log=log)
            log(f"{image.reference}")
    elif destination.archive is not None:
        with step("archive") as log:
            archive = write_archive(image, destination.archive)
            log(f"{archive} ({archive.stat().st_size} bytes): load it with docker, podman or the platform's upload")
    return Shipped(extension=extension, files=files, image=image, parity=parity, archive=archive)
