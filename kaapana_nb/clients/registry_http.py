"""Requests to one registry: where they go, what they carry, when they are repeated, what their failure means."""

from __future__ import annotations

import contextlib
import ipaddress
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

import httpx

from kaapana_nb.clients.oci import MAX_DOCUMENT
from kaapana_nb.clients.registry_auth import Authenticator
from kaapana_nb.clients.registry_errors import Answer, broken, refusal, speaks_tls
from kaapana_nb.errors import RegistryError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from kaapana_nb.clients.credentials import Credentials

RETRIES = 4
"""How often a request is repeated: with the pauses of `pause_s`, for about six seconds."""

AGAIN = frozenset({429, 500, 502, 503, 504})
"""Statuses after which the same request may well succeed."""

_PIECE = 1 << 20


def pause_s(attempt: int) -> float:
    """Seconds to wait after the failure of attempt 0, 1, …"""
    return 0.2 * 2.0 ** min(attempt, 5)


def is_loopback(host: str) -> bool:
    """Whether a registry's address is this machine itself."""
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request: `what` says in words what is tried, `scope` what a token must allow."""

    method: str
    url: str
    what: str
    scope: str = ""
    headers: Mapping[str, str]
    content: bytes = b""
    redirect: bool = False


class Wire:
    """The connection to one registry. Parameters as of `kaapana_nb.clients.registry.RegistryClient`."""

    def __init__(
        self,
        host: str,
        credentials: Credentials | None,
        transport: httpx.BaseTransport | None,
        ca_file: Path | None,
        plain_http: bool | None,
        timeout_s: float,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.host = host
        loopback = is_loopback(host)
        self.plain_http = loopback and ca_file is None if plain_http is None else plain_http
        self.sleep = sleep
        self._base = f"{'http' if self.plain_http else 'https'}://{host}"
        self._client = httpx.Client(
            transport=transport,
            verify=_tls(ca_file, host),
            timeout=httpx.Timeout(timeout_s, connect=0.8 if loopback else 5.0),
            trust_env=not loopback,
            headers={"User-Agent": "kaapana-nb", "Accept-Encoding": "identity"},
        )
        self.auth = Authenticator(self._client, host, credentials, allow_http=self.plain_http)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def send(
        self,
        method: str,
        path: str,
        what: str,
        *,
        scope: str = "",
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
        tries: int = RETRIES,
        redirect: bool = False,
    ) -> Answer:
        """One request, repeated with growing pauses when the registry fails or the connection breaks.

        Raises
        ------
        RegistryError
            When the connection cannot be made. What the registry answers is the caller's to judge.
        """
        call = Call(
            method=method, url=urljoin(self._base, path), what=what, scope=scope, headers=headers or {},
            content=content, redirect=redirect,
        )  # fmt: skip
        for attempt in range(tries + 1):
            try:
                answer = self.once(call)
                if answer.status not in AGAIN or attempt == tries or answer.is_disk_full:
                    return answer
            except httpx.TransportError as error:
                if attempt == tries or _is_tls(error):
                    raise self.broken(error, what) from error
            self.sleep(pause_s(attempt))
        raise AssertionError  # the last attempt returned or raised

    def once(self, call: Call) -> Answer:
        """One request, sent a second time only to answer a challenge. Transport errors are httpx's own."""
        with self._opened(call) as (response, sent):
            return _read(response, sent, self.host, call.what)

    @contextlib.contextmanager
    def stream(self, path: str, what: str, scope: str, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        """A body of any size, read by the caller. Redirects are followed, and never with our credentials."""
        call = Call(method="GET", url=urljoin(self._base, path), what=what, scope=scope, headers=headers, redirect=True)
        with self._opened(call) as (response, sent):
            if response.status_code not in (200, 206):
                raise self.refused(_read(response, sent, self.host, what), what)
            yield response

    @contextlib.contextmanager
    def _opened(self, call: Call) -> Iterator[tuple[httpx.Response, str]]:
        """The answer to a request that is authorised as the registry asks, and the authorization that it had."""
        for attempt in range(2):
            authorization = self.auth.header(call.scope) if self._is_ours(call.url) else {}
            request = self._client.build_request(
                call.method, call.url, headers={**call.headers, **authorization}, content=call.content or None
            )
            response = self._client.send(request, stream=True, follow_redirects=call.redirect)
            try:
                sent = authorization.get("Authorization", "")
                if response.status_code == 401 and attempt == 0:
                    answer = _read(response, sent, self.host, call.what)
                    if self.auth.challenged(answer, call.scope, call.what):
                        continue
                    response = httpx.Response(401, headers=response.headers, content=answer.content, request=request)
                yield response, sent
                return
            finally:
                response.close()

    def _is_ours(self, url: str) -> bool:
        return urlsplit(url)[:2] == urlsplit(self._base)[:2]

    def location(self, answer: Answer) -> str:
        """Where an upload goes on.

        Raises
        ------
        RegistryError
            When the registry does not say, or sends a TLS client to plain HTTP.
        """
        location = answer.headers.get("location", "")
        url = urljoin(answer.url, location)
        if not location or (urlsplit(url).scheme != "https" and not self.plain_http):
            raise RegistryError(
                f"Registry {self.host} opened an upload and gave {location[:120]!r} as its place; an https address "
                "was expected.",
                "Look into the settings of the registry (http.host) or of the proxy before it (X-Forwarded-Proto).",
            )
        return url

    def expect(self, answer: Answer, what: str, status: int) -> None:
        """Raise what an answer other than `status` means."""
        if answer.status != status:
            raise self.refused(answer, what)

    def refused(self, answer: Answer, what: str) -> RegistryError:
        """What a refusal means."""
        return refusal(answer, self.host, what, user=self.auth.user, has_credentials=self.auth.has_credentials)

    def broken(self, error: httpx.HTTPError, what: str) -> RegistryError:
        """What a broken connection means."""
        return broken(error, self.host, what, plain_http=self.plain_http)

    def corrupt(self, what: str, expected: str, seen: str) -> RegistryError:
        """The error for content that is not what its digest says."""
        return RegistryError(
            f"Registry {self.host} was asked to {what} and has {seen[:90]!r}; {expected!r} was expected.",
            "Push the image again; if that does not help, look into the registry's storage.",
        )


def _read(response: httpx.Response, sent: str, host: str, what: str) -> Answer:
    content = b""
    for piece in response.iter_bytes(_PIECE):
        content += piece
        if len(content) > MAX_DOCUMENT:
            raise RegistryError(
                f"Registry {host} was asked to {what} and answers with more than {MAX_DOCUMENT} bytes.",
                "Check that the address is a registry's.",
            )
    if response.status_code == 400 and b"HTTP request to an HTTPS server" in content:
        raise speaks_tls(host)
    return Answer(
        status=response.status_code, headers=response.headers, content=content, url=str(response.url),
        authorization=sent,
    )  # fmt: skip


def _is_tls(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _tls(ca_file: Path | None, host: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=ca_file)
        except OSError:  # ssl.SSLError is one
            raise UsageError(
                f"{ca_file} is no file with certificates in PEM.", f"Name the authority of {host} with --ca-file FILE."
            ) from None
    return context
