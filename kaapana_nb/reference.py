"""OCI image references: ``registry/repository:tag@digest``, parsed and printed without any I/O.

Grammar: OCI distribution specification 1.1, "Pulling manifests"; the rule which first
component is a registry (it has a dot or a colon, or is ``localhost``) is Docker's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from kaapana_nb.errors import UsageError

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_REGISTRY = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9a-fA-F:]+\])"
    r"(?::[0-9]{1,5})?\Z"
)
_REMEDY = "Write it as registry[:port]/path/name[:tag][@sha256:digest], the name in lower case."


def is_digest(text: str) -> bool:
    """Whether `text` is a sha256 digest as OCI writes it."""
    return _DIGEST.match(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReference:
    """A reference to a container image. ``registry`` is empty for local-only images."""

    registry: str = ""
    repository: str
    tag: str = ""
    digest: str = ""

    def __post_init__(self) -> None:
        checks = (
            ("registry", self.registry, _REGISTRY, True),
            ("repository", self.repository, _REPOSITORY, False),
            ("tag", self.tag, _TAG, True),
            ("digest", self.digest, _DIGEST, True),
        )
        for name, value, pattern, optional in checks:
            if not (optional and value == "") and pattern.match(value) is None:
                raise UsageError(f"{value!r} is no valid {name} of an image reference.", _REMEDY)
        if len(self.repository) > 255:
            raise UsageError(f"The repository of an image reference has {len(self.repository)} characters.", _REMEDY)

    @classmethod
    def parse(cls, text: str) -> ImageReference:
        """Parse a reference; ``parse(str(reference)) == reference``.

        Raises
        ------
        UsageError
            When `text` is no reference.
        """
        rest, _, digest = text.partition("@")
        registry = ""
        first, slash, tail = rest.partition("/")
        if slash and ("." in first or ":" in first or first == "localhost" or first.startswith("[")):
            registry, rest = first, tail
        repository, _, tag = rest.partition(":")
        if ("@" in text and not digest) or (":" in rest and not tag) or not repository:
            raise UsageError(f"{text!r} is no image reference.", _REMEDY)
        return cls(registry=registry, repository=repository, tag=tag, digest=digest)

    def __str__(self) -> str:
        text = f"{self.registry}/{self.repository}" if self.registry else self.repository
        if self.tag:
            text += f":{self.tag}"
        if self.digest:
            text += f"@{self.digest}"
        return text

    @property
    def name(self) -> str:
        """Last component of the repository."""
        return self.repository.rpartition("/")[2]

    def with_tag(self, tag: str) -> ImageReference:
        """The same repository with another tag and no digest."""
        return replace(self, tag=tag, digest="")

    def with_digest(self, digest: str) -> ImageReference:
        """The same reference pinned to a digest."""
        return replace(self, digest=digest)
