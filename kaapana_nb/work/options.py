"""What ``@algorithm(...)`` declares beside the signature, checked the same way at run time and on reading."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from kaapana_nb.contract.names import is_slug
from kaapana_nb.errors import AlgorithmError

_VERSION = re.compile(r"[0-9]{1,6}\.[0-9]{1,6}\.[0-9]{1,6}\Z")
_APT = re.compile(r"[a-z0-9][a-z0-9.+-]{1,99}\Z")
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.!]+\Z")
_TERM = re.compile(r"[A-Za-z][A-Za-z0-9 '@_-]{0,63}\Z")
_SUFFIX = re.compile(r"\.[a-z0-9]+(\.[a-z0-9]+)?\Z")
MAX_MEMORY_MIB = 4 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class AlgorithmOptions:
    """Declarations of an algorithm.

    Attributes
    ----------
    memory_mib
        Memory that one call needs at most, in MiB: bounds how many elements run at once, and becomes the operator's
        request.
    version
        ``major.minor.patch`` of the exported extension.
    mask
        The image that comes back is a segmentation of this anatomy (a term of the platform's converter, ``organ`` or
        ``side@organ``): it becomes a DICOM SEG in the PACS.
    input_operator
        Name of the operator whose results are the input, where it is another exported algorithm.
    apt
        System packages that the container needs.
    requirements
        Pinned distributions beside those that are imported (``name==version``).
    tolerance
        How far results of notebook and container may differ, by suffix (``{".nrrd": 1e-6}``); default: not at all.
    """

    memory_mib: int | None = None
    version: str = "0.1.0"
    mask: str | None = None
    input_operator: str | None = None
    apt: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()
    tolerance: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def checked(cls, options: Mapping[str, Any]) -> AlgorithmOptions:
        """Check the decorator's keywords.

        Raises
        ------
        AlgorithmError
            For an unknown keyword or a value that is not allowed.
        """
        known = [item.name for item in fields(cls)]
        for name, value in options.items():
            if name not in known:
                raise AlgorithmError(f"@algorithm takes no {name!r}.", f"What can be declared: {', '.join(known)}.")
            expected = _wrong(name, value)
            if expected:
                raise AlgorithmError(f"@algorithm({name}={value!r:.80}): {expected} was expected.", f"Correct {name}.")
        values = dict(options)
        for name in ("apt", "requirements"):
            values[name] = tuple(sorted(values.get(name, ())))
        values["tolerance"] = dict(values.get("tolerance", {}))
        return cls(**values)


def _wrong(name: str, value: Any) -> str:
    """What was expected, or nothing when the value is that."""
    match name:
        case "memory_mib":
            number = isinstance(value, int) and not isinstance(value, bool)
            return "" if value is None or (number and 0 < value <= MAX_MEMORY_MIB) else "a number of MiB"
        case "version":
            return "" if isinstance(value, str) and _VERSION.match(value) else "major.minor.patch"
        case "mask":
            good = value is None or (isinstance(value, str) and _TERM.match(value))
            return "" if good else "an anatomy such as 'abdomen' or 'right@kidney'"
        case "input_operator":
            return "" if value is None or (isinstance(value, str) and is_slug(value)) else "the name of an operator"
        case "apt":
            return "" if _texts(value, _APT) else "a list of Debian packages"
        case "requirements":
            return "" if _texts(value, _REQUIREMENT) else "a list of name==version"
        case _:
            good = isinstance(value, Mapping) and all(
                isinstance(suffix, str)
                and _SUFFIX.match(suffix)
                and isinstance(bound, int | float)
                and not isinstance(bound, bool)
                and 0 <= bound < float("inf")
                for suffix, bound in value.items()
            )
            return "" if good else "a dict of suffix and number such as {'.nrrd': 1e-6}"


def _texts(value: Any, pattern: re.Pattern[str]) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, str) and pattern.match(item) for item in value)
