"""Requirements of a container, read from the live environment: what the notebook imports, at the versions it ran with.

The list is the whole closure, so that the container is installed with ``--no-deps`` and holds what the notebook
session held, not what an index resolves on another day.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from kaapana_nb.errors import NotebookError

OWN = "kaapana-nb"
_PUBLIC = re.compile(r"[0-9A-Za-z.!]+\Z")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Pin:
    """One distribution at one version. ``reason`` is what asked for it: ``notebook`` or a distribution."""

    name: str
    version: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"


def pins_for(imports: Iterable[str], *, local: Iterable[str] = (), runner: str = "notebook") -> tuple[Pin, ...]:
    """Pin what the imported modules and kaapana-nb itself need, by name.

    Parameters
    ----------
    imports
        Top-level modules that the notebook imports.
    local
        Modules that lie beside the notebook and are copied along.
    runner
        What of kaapana-nb the container needs: ``"notebook"`` (with papermill), ``"script"``, or ``""``.

    Raises
    ------
    NotebookError
        When a module is not installed, or was installed from a directory or address that a container cannot use.
    """
    skip = set(sys.stdlib_module_names) | set(local) | {"kaapana_nb"}
    extras = {"notebook": [frozenset({"execute"})], "script": [frozenset[str]()]}.get(runner, [])
    queue: list[tuple[str, str, frozenset[str]]] = [(OWN, OWN, extra) for extra in extras]
    for module in sorted(set(imports) - skip):
        queue += [(canonicalize_name(name), "notebook", frozenset()) for name in _distributions_of(module)]
    found: dict[str, Pin] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    while queue:
        name, reason, wanted = queue.pop(0)
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        if name != OWN and (name not in found or reason == "notebook"):
            found[name] = Pin(name=name, version=_version(name, reason), reason=reason)
        queue += [(canonicalize_name(req.name), name, frozenset(req.extras)) for req in _requires(name, wanted)]
    return tuple(found[name] for name in sorted(found))


def render(pins: Iterable[Pin], wheel: str = "", declared: Iterable[str] = ()) -> str:
    """The requirements file: direct imports first, then what they need.

    `wheel` is kaapana-nb's own, `declared` what the algorithm asks for beside its imports.
    """
    pins = tuple(pins)
    direct = [pin for pin in pins if pin.reason == "notebook"]
    rest = [pin for pin in pins if pin.reason != "notebook"]
    lines = ["# The versions that the notebook ran with. Install with --no-deps: the list is complete.", wheel]
    if direct:
        lines += ["", "# imported by the notebook", *map(str, direct)]
    if rest:
        lines += ["", "# needed by these and by kaapana-nb", *map(str, rest)]
    names = {pin.name for pin in pins}
    wanted = [line for line in declared if canonicalize_name(line.partition("==")[0]) not in names]
    if wanted:
        lines += ["", "# declared by the algorithm", *wanted]
    return "\n".join(lines) + "\n"


@cache
def _packages() -> dict[str, list[str]]:
    return dict(importlib.metadata.packages_distributions())


def _distributions_of(module: str) -> list[str]:
    names = _packages().get(module)
    if not names:
        raise NotebookError(
            f"The notebook imports {module!r}, which is neither installed nor a file beside the notebook.",
            f"Install the package that brings {module} in this session, or remove the import.",
        )
    return sorted(set(names))


def _distribution(name: str, reason: str) -> importlib.metadata.Distribution:
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError as error:
        raise NotebookError(
            f"{name}, which {reason} needs, is not installed.", f"Install it in this session: pip install {name}."
        ) from error


def _version(name: str, reason: str) -> str:
    found = _distribution(name, reason)
    if found.read_text("direct_url.json") is not None or not _PUBLIC.match(found.version):
        raise NotebookError(
            f"{name} {found.version} was installed from a directory or an address; a container cannot install that.",
            f"Install a released version of {name}, or put the module beside the notebook.",
        )
    return found.version


def _requires(name: str, extras: frozenset[str]) -> Iterator[Requirement]:
    """Requirements of an installed distribution that hold here; those of packages not installed raise later."""
    for text in _distribution(name, "the notebook").requires or ():
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras | {""}):
            yield requirement
