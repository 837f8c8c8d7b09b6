"""The platform's traps, found in an extension before anything slow is done."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from kaapana_nb.contract.profiles import Profile
from kaapana_nb.errors import NotebookError
from kaapana_nb.ship.chain import chain_for
from kaapana_nb.ship.dag_files import dag_module, operator_module
from kaapana_nb.work.notebook import AlgorithmSpec, NotebookSpec

RELEASE_CHARACTERS = 42
"""How much of a run id the platform takes for a release's name (the last characters)."""
RUN_ID_SUFFIX = len("-260101000000000000")

INSTALLER_PATTERN = re.compile(
    r"""image=("|'|f"|f')([\w\-\\{\}.]+)(/[\w\-.]+|)/([\w\-.]+):([\w\-\\{\}.]+)("|'|f"|f')"""
)
"""What the DAG installer takes for an image: registry, project, name and tag of an ``image=`` literal."""
RESOLVED = frozenset(
    {
        "DEFAULT_REGISTRY",
        "default_registry",
        "DOCKER_VERSION",
        "default_version_identifier",
        "default_platform_abbr",
        "default_platform_version",
    }
)
"""Names in such a literal that the installers know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trap:
    """Something that the platform would stumble over. An error stops the export, a warning is shown."""

    severity: Literal["error", "warning"]
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.problem} {self.remedy}"


def lint(spec: NotebookSpec, profile: Profile) -> tuple[Trap, ...]:
    """Every trap of an extension."""
    traps = [*_literal_traps(operator_module(spec, profile) + dag_module(spec, profile)), *_name_traps(spec)]
    if spec.algorithm is not None:
        traps += _algorithm_traps(spec.algorithm)
    return tuple(traps)


def require_no_errors(traps: tuple[Trap, ...]) -> tuple[Trap, ...]:
    """The warnings.

    Raises
    ------
    NotebookError
        With the first error.
    """
    for trap in traps:
        if trap.severity == "error":
            raise NotebookError(trap.problem, trap.remedy)
    return traps


def _name_traps(spec: NotebookSpec) -> Iterator[Trap]:
    room = RELEASE_CHARACTERS - RUN_ID_SUFFIX
    if len(spec.name) > room:
        yield Trap(
            severity="warning",
            problem=f"The name {spec.name} has {len(spec.name)} characters; releases of its dev servers are named by "
            f"the last {room} of them.",
            remedy="A shorter name keeps them apart from those of other workflows.",
        )


def _literal_traps(module: str) -> Iterator[Trap]:
    """The DAG installer reads image names as text: what it cannot resolve is not pulled."""
    found = INSTALLER_PATTERN.findall(module)
    names = {name for match in found for part in match for name in re.findall(r"{(\w+)}", part)}
    if len(found) != 1 or names - RESOLVED:
        seen = ", ".join(sorted(names)) or "no match"
        yield Trap(
            severity="error",
            problem=f"The DAG installer cannot resolve the operator's image ({seen}).",
            remedy="Give the algorithm a plain name of letters, digits and dashes.",
        )


def _algorithm_traps(algorithm: AlgorithmSpec) -> Iterator[Trap]:
    from kaapana_nb.ship.segmentation_preflight import is_known_anatomy  # slow to import, for masks alone

    chain = chain_for(algorithm)
    if algorithm.options.memory_mib is None:
        yield Trap(
            severity="warning",
            problem=f"{algorithm.function} declares no memory; the platform would start it on any node.",
            remedy="Write @algorithm(memory_mib=...); `kaapana-nb run` shows the peak of each series.",
        )
    result = algorithm.output_type.strip("'\"")
    if chain.segmentation is not None:
        if chain.batch_level or "[" in result or result.rpartition(".")[2] not in {"Image", "SeriesVolume"}:
            yield Trap(
                severity="error",
                problem=f"{algorithm.function} declares mask={chain.segmentation!r} and returns {result or 'nothing'}; "
                "the converter to DICOM SEG takes one image per series.",
                remedy="Return one sitk.Image of labels, or leave mask out.",
            )
        if not is_known_anatomy(chain.segmentation):
            yield Trap(
                severity="error",
                problem=f"mask={chain.segmentation!r} is no anatomy that has a code.",
                remedy="Take a term such as abdomen, liver, lung, left@kidney.",
            )
    if not result:
        yield Trap(
            severity="warning",
            problem=f"{algorithm.function} does not say what it returns, so every kind of file goes to the store.",
            remedy="Annotate the result: -> sitk.Image, -> dict and the like.",
        )
