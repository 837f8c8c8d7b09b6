"""What a registry's answers and broken connections mean for the user: one error per cause."""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from kaapana_nb.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Mapping

LOGIN = (
    "Give credentials: `podman login {host}`, --creds-file FILE, or KAAPANA_NB_REGISTRY_USER and "
    "KAAPANA_NB_REGISTRY_PASSWORD in the environment."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a registry answered, read to its end; `authorization` is what the request carried."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    url: str
    authorization: str = field(default="", repr=False)

    @property
    def codes(self) -> dict[str, str]:
        """The error codes with what the registry adds (distribution specification, "Error Codes")."""
        try:
            errors = json.loads(self.content[:65536]).get("errors")
        except (ValueError, AttributeError, RecursionError):
            return {}
        if not isinstance(errors, list):
            return {}
        return {str(item.get("code"))[:40]: _detail(item) for item in errors if isinstance(item, dict)}

    @property
    def is_disk_full(self) -> bool:
        """Whether the registry's storage is full (docker-registry: an internal error that wraps errno 28)."""
        text = " ".join(self.codes.values())
        return self.status == 507 or '"Err": 28' in text or "no space left" in text.lower()


def _detail(item: dict[str, Any]) -> str:
    return f"{item.get('message') or ''} {json.dumps(item.get('detail') or '')}"[:500]


def refusal(answer: Answer, host: str, what: str, *, user: str, has_credentials: bool) -> RegistryError:
    """The error for an answer that is no success; `what` says what was tried, as in ``push tools/otsu``."""
    status, codes = answer.status, answer.codes
    login = LOGIN.format(host=host)
    who = f"user {user!r}" if user else "the user"
    if answer.is_disk_full:
        return RegistryError(
            f"The disk of registry {host} is full: it could not {what}.",
            "Free space there (`docker-registry garbage-collect`), then repeat the push: it goes on where it stopped.",
        )
    if status == 401 and not has_credentials:
        return RegistryError(f"Registry {host} wants credentials to {what}; none were found.", login)
    if status == 401:
        return RegistryError(f"Registry {host} refused the password of {who} to {what}.", login)
    if status == 403 or "DENIED" in codes:
        return RegistryError(
            f"Registry {host} does not allow {who} to {what}.",
            "Ask for push rights on that repository, or push elsewhere with --push REGISTRY/PATH.",
        )
    if status == 405 or "UNSUPPORTED" in codes:
        return RegistryError(
            f"Registry {host} is read-only: it does not {what}.", "Push to another registry, or use --archive FILE."
        )
    if "NAME_UNKNOWN" in codes or "NAME_INVALID" in codes:
        return RegistryError(
            f"Registry {host} has no such repository: it could not {what}.",
            "Correct the repository's path, or have the project made in the registry.",
        )
    if status == 404:
        return RegistryError(f"Registry {host} has nothing there: it could not {what}.", "Check name and tag.")
    if status == 413:
        return RegistryError(
            f"Registry {host} (or a proxy before it) takes no upload of that size: it could not {what}.",
            "Raise the proxy's limit of body sizes (nginx: client_max_body_size 0).",
        )
    if status == 429:
        return RegistryError(f"Registry {host} takes no more requests for now: it could not {what}.", "Try later.")
    named = ", ".join(sorted(codes)) or "no error code"
    return RegistryError(
        f"Registry {host} answered {status} ({named}) when asked to {what}.", "Look into the registry's log."
    )


def broken(error: httpx.HTTPError, host: str, what: str, *, plain_http: bool) -> RegistryError:
    """The error for a connection that could not be made or broke."""
    text = " ".join(str(cause) for cause in _chain(error))
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return RegistryError(
            f"The certificate of registry {host} is not signed by an authority that this machine trusts "
            f"(tried to {what}).",
            "Name the registry's authority with --ca-file FILE.",
        )
    if "WRONG_VERSION_NUMBER" in text or "record layer failure" in text or "packet length too long" in text:
        return RegistryError(
            f"Registry {host} does not speak TLS (tried to {what}).",
            "If the network between is trusted, allow it with --plain-http.",
        )
    if any(isinstance(cause, ssl.SSLError) for cause in _chain(error)):
        return RegistryError(
            f"No TLS connection to registry {host} could be made (tried to {what}).", "Check its TLS settings."
        )
    if isinstance(error, httpx.TimeoutException):
        return RegistryError(
            f"Registry {host} did not answer in time (tried to {what}).", "Check the network, then try again."
        )
    if isinstance(error, httpx.ConnectError):
        return RegistryError(
            f"Registry {host} cannot be reached (tried to {what}{' over plain HTTP' if plain_http else ''}).",
            "Start the registry, correct its address, or write the image to a file with --archive FILE.",
        )
    return RegistryError(
        f"The connection to registry {host} broke (tried to {what}).",
        "Try again: layers that arrived are not sent a second time.",
    )


def speaks_tls(host: str) -> RegistryError:
    """The error for plain HTTP sent to a TLS port."""
    return RegistryError(
        f"Registry {host} speaks TLS, and was asked over plain HTTP.",
        "Leave --plain-http out; on this machine's own address, name the registry's authority with --ca-file FILE.",
    )


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
