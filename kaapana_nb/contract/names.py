"""Names that the platform, Kubernetes and registries accept, and directory names that stay inside a run."""

from __future__ import annotations

import re
import unicodedata

from kaapana_nb.errors import ContractError, UsageError

MAX_NAME = 50
"""Longest algorithm name: a Kubernetes label takes 63 characters and the platform appends ids."""

_SLUG = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?\Z")
_RESERVED = frozenset({"batch", "conf"})


def slug(text: str) -> str:
    """Turn a Python or notebook name into an operator's name: ``otsus_method`` -> ``otsus-method``.

    Raises
    ------
    UsageError
        When nothing is left that could be a name, or the name is too long or taken by the platform.
    """
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    name = re.sub(r"[^a-z0-9]+", "-", ascii_text.lower()).strip("-")
    if not name or len(name) > MAX_NAME or name in _RESERVED or not name[0].isalpha():
        raise UsageError(
            f"{text!r} gives no operator name: 1 to {MAX_NAME} letters, digits and dashes, beginning with a letter "
            f"and other than {', '.join(sorted(_RESERVED))}, were expected.",
            "Give the algorithm another name.",
        )
    return name


def is_slug(text: str) -> bool:
    """Whether `text` is a valid operator, image and Kubernetes name."""
    return len(text) <= MAX_NAME and _SLUG.match(text) is not None


def class_name(name: str) -> str:
    """``otsus-method`` -> ``OtsusMethod``, as operator classes are named."""
    return "".join(part.capitalize() for part in name.split("-"))


def directory_name(value: str, variable: str) -> str:
    """Check that `value` is one plain directory name (it comes from the environment).

    Raises
    ------
    ContractError
        When it is empty, has a separator or control character, or is ``.`` or ``..``.
    """
    bad = not value or value in {".", ".."} or "/" in value or "\\" in value or not value.isprintable()
    if bad or len(value.encode()) > 255:
        raise ContractError(
            f"{variable} is {value!r}; the name of one directory was expected.",
            f"Set {variable} to a plain name such as get-input-data.",
        )
    return value
