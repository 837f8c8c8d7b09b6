"""An OCI registry over its HTTP API: probe, fetch, mount, upload.

Sources: OCI distribution specification 1.1; Docker's registry token authentication. Credentials are
sent only to the registry (basic) or to the token server that it names, over TLS unless plain HTTP was asked for.
"""

from __future__ import annotations

import hashlib
import io
import ipaddress
import re
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self
from urllib.parse import urljoin, urlsplit

import httpx

from kaapana_nb.clients.layout import verify_blob
from kaapana_nb.clients.oci import INDEXES, MANIFESTS, MAX_DOCUMENT, Descriptor, sha256
from kaapana_nb.clients.registry_auth import Authenticator
from kaapana_nb.clients.registry_errors import broken, is_disk_full, refusal, speaks_tls
from kaapana_nb.errors import RegistryError, UsageError
from kaapana_nb.reference import is_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from kaapana_nb.clients.credentials import Credentials

CHUNK = 16 << 20
"""Bytes of one upload request. A broken connection costs at most this much."""

RETRIES = 4
_BACKOFF_S = 0.2
_AGAIN = frozenset({429, 500, 502, 503, 504})
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """How a blob got into a repository: bytes sent, and whether it was there or mounted instead."""

    bytes_sent: int = 0
    mounted: bool = False


def is_loopback(host: str) -> bool:
    """Whether a registry's address is this machine itself."""
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


class RegistryClient:
    """A client of one registry. Use it as a context manager, or close it.

    Parameters
    ----------
    host
        ``name[:port]``.
    credentials
        What to answer a challenge with; ``None`` for anonymous access.
    transport
        Stands in for the network in tests.
    ca_file
        A private certificate authority in PEM, beside those that the machine trusts.
    plain_http
        ``True`` asks for HTTP. ``None``: HTTP on this machine's own address without `ca_file`, else TLS.
    chunk
        Bytes of one upload request.
    """

    def __init__(
        self,
        host: str,
        *,
        credentials: Credentials | None = None,
        transport: httpx.BaseTransport | None = None,
        ca_file: Path | None = None,
        plain_http: bool | None = None,
        timeout_s: float = 60,
        chunk: int = CHUNK,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.host = host
        loopback = is_loopback(host)
        self.plain_http = loopback and ca_file is None if plain_http is None else plain_http
        self._base = f"{'http' if self.plain_http else 'https'}://{host}"
        self._chunk, self._sleep = chunk, sleep
        timeout = httpx.Timeout(timeout_s, connect=0.8 if loopback else 5.0)
        self._client = httpx.Client(
            transport=transport, verify=_tls(ca_file, host), timeout=timeout, trust_env=not loopback,
            headers={"User-Agent": "kaapana-nb"}, follow_redirects=False,
        )  # fmt: skip
        self._auth = Authenticator(self._client, host, credentials, allow_http=self.plain_http)

    def __repr__(self) -> str:
        return f"RegistryClient({self.host!r}, user={self._auth.user!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    # Asking

    def probe(self, push_to: str = "") -> None:
        """Check that the registry answers, takes the credentials and, for a repository, would take a push.

        Raises
        ------
        RegistryError
            With the cause, after about a second at most for a registry on this machine that is down.
        """
        what = f"push to {push_to}" if push_to else "answer"
        response = self._send("GET", "/v2/", what, scope=f"repository:{push_to}:pull,push" if push_to else "", tries=0)
        self._expect(response, what, 200)
        if push_to:
            started = self._send("POST", f"/v2/{push_to}/blobs/uploads/", what, scope=_push(push_to), tries=0)
            self._expect(started, what, 202)
            self._send("DELETE", self._location(started), what, scope=_push(push_to), tries=0)

    def manifest(self, repository: str, reference: str) -> tuple[Descriptor, bytes]:
        """Fetch a manifest or index by tag or digest; a digest is checked.

        Raises
        ------
        RegistryError
            When there is none, or the content is not what the digest says.
        """
        what = f"fetch {repository}:{reference}"
        accept = ", ".join((*MANIFESTS, *INDEXES))
        response = self._send(
            "GET", f"/v2/{repository}/manifests/{reference}", what, scope=_pull(repository), headers={"Accept": accept}
        )
        self._expect(response, what, 200)
        data = response.content
        media_type = response.headers.get("content-type", "").partition(";")[0].strip()
        descriptor = Descriptor.of(data, media_type)
        named = reference if is_digest(reference) else response.headers.get("docker-content-digest", descriptor.digest)
        if named != descriptor.digest or len(data) > MAX_DOCUMENT:
            raise self._corrupt(what, named, descriptor.digest)
        return descriptor, data

    def digest_of(self, repository: str, tag: str) -> str | None:
        """The digest that a tag stands for, or ``None``."""
        what = f"look {repository}:{tag} up"
        response = self._send(
            "HEAD", f"/v2/{repository}/manifests/{tag}", what, scope=_pull(repository),
            headers={"Accept": ", ".join((*MANIFESTS, *INDEXES))},
        )  # fmt: skip
        if response.status_code == 404:
            return None
        self._expect(response, what, 200)
        digest = str(response.headers.get("docker-content-digest", ""))
        return digest if is_digest(digest) else None

    def has_blob(self, repository: str, descriptor: Descriptor) -> bool:
        """Whether the repository has the blob."""
        what = f"look a layer of {repository} up"
        response = self._send(
            "HEAD", f"/v2/{repository}/blobs/{descriptor.digest}", what, scope=_push(repository), redirect=True
        )
        if response.status_code == 404:
            return False
        self._expect(response, what, 200)
        return True

    def fetch_blob(self, repository: str, descriptor: Descriptor, file: BinaryIO) -> None:
        """Write a blob to `file`, its digest checked; a broken transfer goes on where it stopped.

        Raises
        ------
        RegistryError
            When it is not there, or its content is not what the digest says.
        """
        what = f"fetch a layer of {repository}"
        path = f"/v2/{repository}/blobs/{descriptor.digest}"
        digest, done = hashlib.sha256(), 0
        for attempt in range(RETRIES + 1):
            headers = {"Range": f"bytes={done}-"} if done else {}
            try:
                with self._stream(path, what, _pull(repository), headers) as response:
                    if done and response.status_code != 206:
                        file.seek(0)
                        digest, done = hashlib.sha256(), 0
                    for piece in response.iter_raw(_PIECE):
                        done += len(piece)
                        if done > descriptor.size:
                            raise self._corrupt(what, descriptor.digest, f"something of more than {done} bytes")
                        digest.update(piece)
                        file.write(piece)
                if done == descriptor.size:
                    break
            except httpx.TransportError as error:
                if attempt == RETRIES:
                    raise broken(error, self.host, what, plain_http=self.plain_http) from error
                self._sleep(_BACKOFF_S * 2**attempt)
        if "sha256:" + digest.hexdigest() != descriptor.digest:
            raise self._corrupt(what, descriptor.digest, "sha256:" + digest.hexdigest())

    def read_blob(self, repository: str, descriptor: Descriptor) -> bytes:
        """A small blob (a configuration), its digest checked."""
        if descriptor.size > MAX_DOCUMENT:
            raise RegistryError(
                f"{descriptor.digest} of {repository} has {descriptor.size} bytes; at most {MAX_DOCUMENT} were "
                "expected of a configuration.",
                "Choose another image.",
            )
        file = io.BytesIO()
        self.fetch_blob(repository, descriptor, file)
        return file.getvalue()

    # Pushing

    def upload_blob(
        self, repository: str, descriptor: Descriptor, source: Path | bytes | None, mount_from: str = ""
    ) -> Upload:
        """Bring a blob into a repository: found there, mounted from another repository, or uploaded.

        The upload goes in chunks; when the connection breaks, the registry is asked how far it came.

        Parameters
        ----------
        source
            The blob; ``None`` when it is not here, which is fine if the registry has it.

        Raises
        ------
        RegistryError
            When the registry refuses, or still fails after the retries.
        """
        what = f"push to {repository}"
        if self.has_blob(repository, descriptor):
            return Upload()
        if source is None and not mount_from:
            raise RegistryError(
                f"Neither this machine nor repository {repository} of {self.host} has layer {descriptor.digest}.",
                "Build again with a base image that is here: --base DIR.",
            )
        if isinstance(source, Path):
            verify_blob(source, descriptor.digest)
        sent = 0
        for attempt in range(RETRIES + 1):
            query = f"?mount={descriptor.digest}&from={mount_from}" if mount_from and attempt == 0 else ""
            scope = _push(repository) + (f" {_pull(mount_from)}" if query else "")
            started = self._send("POST", f"/v2/{repository}/blobs/uploads/{query}", what, scope=scope)
            if started.status_code == 201:
                return Upload(mounted=True)
            self._expect(started, what, 202)
            if source is None:
                self._send("DELETE", self._location(started), what, scope=scope)
                raise RegistryError(
                    f"Registry {self.host} cannot mount layer {descriptor.digest} from {mount_from}.",
                    "Build again with a base image that is here: --base DIR.",
                )
            finished, more = self._transfer(self._location(started), descriptor, source, what, _push(repository))
            sent += more
            if finished:
                return Upload(bytes_sent=sent)
            self._sleep(_BACKOFF_S * 2**attempt)
        raise RegistryError(
            f"The upload of layer {descriptor.digest} to {self.host} broke {RETRIES + 1} times.",
            "Check the network and the registry's log, then push again.",
        )

    def _transfer(
        self, location: str, descriptor: Descriptor, source: Path | bytes, what: str, scope: str
    ) -> tuple[bool, int]:
        """Send a blob to an open upload; ``False`` when the registry lost it and it must begin anew."""
        offset, sent, failures = 0, 0, 0
        while True:
            data = _read(source, offset, self._chunk)
            last = offset + len(data) >= descriptor.size
            target = location + ("&" if "?" in location else "?") + f"digest={descriptor.digest}" if last else location
            headers = {"Content-Type": "application/octet-stream"}
            if not last:
                headers["Content-Range"] = f"{offset}-{offset + len(data) - 1}"
            try:
                response = self._once("PUT" if last else "PATCH", target, what, scope, headers, data)
            except httpx.TransportError as error:
                failures += 1
                if failures > RETRIES:
                    raise broken(error, self.host, what, plain_http=self.plain_http) from error
                response = None
            sent += len(data)
            if response is not None and response.status_code == (201 if last else 202):
                if last:
                    self._check_digest(response, descriptor.digest, what)
                    return True, sent
                offset += len(data)
                location = self._location(response)
                continue
            if response is not None and (is_disk_full(response) or response.status_code not in _AGAIN | {404, 416}):
                raise self._refused(response, what)
            if response is not None:
                failures += 1
                if failures > RETRIES:
                    raise self._refused(response, what)
            self._sleep(_BACKOFF_S * 2 ** min(failures, RETRIES))
            state = self._send("GET", location, what, scope=scope)
            match = re.fullmatch(r"(?:bytes=)?0-([0-9]{1,15})", state.headers.get("range", ""))
            if state.status_code != 204 or match is None or int(match[1]) >= descriptor.size:
                return False, sent
            offset = int(match[1]) + 1 if int(match[1]) else 0
            location = self._location(state)

    def put_manifest(self, repository: str, reference: str, data: bytes, media_type: str) -> str:
        """Store a manifest under a tag or its digest; give the digest that the registry confirms."""
        what = f"push {repository}:{reference}"
        response = self._send(
            "PUT", f"/v2/{repository}/manifests/{reference}", what, scope=_push(repository),
            headers={"Content-Type": media_type}, content=data,
        )  # fmt: skip
        self._expect(response, what, 201)
        self._check_digest(response, sha256(data), what)
        return sha256(data)

    # The wire

    def _check_digest(self, response: httpx.Response, expected: str, what: str) -> None:
        seen = response.headers.get("docker-content-digest", expected)
        if seen != expected:
            raise self._corrupt(what, expected, seen)

    def _corrupt(self, what: str, expected: str, seen: str) -> RegistryError:
        return RegistryError(
            f"Registry {self.host} was asked to {what} and has {seen[:90]!r}; {expected!r} was expected.",
            "Push the image again; if that does not help, look into the registry's storage.",
        )

    def _refused(self, response: httpx.Response, what: str) -> RegistryError:
        return refusal(response, self.host, what, user=self._auth.user, has_credentials=self._auth.has_credentials)

    def _expect(self, response: httpx.Response, what: str, status: int) -> None:
        if response.status_code != status:
            raise self._refused(response, what)

    def _location(self, response: httpx.Response) -> str:
        location = str(response.headers.get("location", ""))
        if not location:
            raise RegistryError(
                f"Registry {self.host} opened an upload without saying where.", "Look into the registry's log."
            )
        return urljoin(str(response.request.url), location)

    def _send(
        self,
        method: str,
        path: str,
        what: str,
        *,
        scope: str,
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
        tries: int = RETRIES,
        redirect: bool = False,
    ) -> httpx.Response:
        """One request, repeated with growing pauses when the registry fails or the connection breaks."""
        for attempt in range(tries + 1):
            try:
                response = self._once(method, path, what, scope, headers or {}, content, redirect=redirect)
                if response.status_code not in _AGAIN or attempt == tries or is_disk_full(response):
                    return response
            except httpx.TransportError as error:
                if attempt == tries or isinstance(error, httpx.UnsupportedProtocol) or _is_tls(error):
                    raise broken(error, self.host, what, plain_http=self.plain_http) from error
            self._sleep(_BACKOFF_S * 2**attempt)
        raise AssertionError  # the last attempt returned or raised

    def _once(
        self,
        method: str,
        path: str,
        what: str,
        scope: str,
        headers: Mapping[str, str],
        content: bytes,
        *,
        redirect: bool = False,
    ) -> httpx.Response:
        url = urljoin(self._base, path)
        for _ in range(2):
            authorization = self._auth.header(scope) if self._is_ours(url) else {}
            response = self._client.request(
                method, url, headers={**headers, **authorization}, content=content or None, follow_redirects=redirect
            )
            if response.status_code == 400 and b"HTTP request to an HTTPS server" in response.content:
                raise speaks_tls(self.host)
            if response.status_code != 401 or not self._auth.challenged(response, scope, what):
                break
        return response

    def _stream(self, path: str, what: str, scope: str, headers: Mapping[str, str]) -> _Stream:
        return _Stream(self, path, what, scope, headers)

    def _is_ours(self, url: str) -> bool:
        return urlsplit(url)[:2] == urlsplit(self._base)[:2]


class _Stream:
    """A GET whose body is read piecewise, after the challenge was answered; redirects go without credentials."""

    def __init__(self, client: RegistryClient, path: str, what: str, scope: str, headers: Mapping[str, str]) -> None:
        self._owner, self._what, self._scope, self._headers = client, what, scope, headers
        self._url = urljoin(client._base, path)

    def __enter__(self) -> httpx.Response:
        owner = self._owner
        for _ in range(2):
            request = owner._client.build_request(
                "GET", self._url, headers={**self._headers, **owner._auth.header(self._scope)}
            )
            self._response = owner._client.send(request, stream=True, follow_redirects=True)
            if self._response.status_code in (200, 206):
                return self._response
            self._response.read()
            self._response.close()
            if self._response.status_code != 401 or not owner._auth.challenged(self._response, self._scope, self._what):
                break
        raise owner._refused(self._response, self._what)

    def __exit__(self, *_: object) -> None:
        self._response.close()


def _push(repository: str) -> str:
    return f"repository:{repository}:pull,push"


def _pull(repository: str) -> str:
    return f"repository:{repository}:pull"


def _read(source: Path | bytes, offset: int, size: int) -> bytes:
    if isinstance(source, bytes):
        return source[offset : offset + size]
    with source.open("rb") as file:
        file.seek(offset)
        return file.read(size)


def _is_tls(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return True
        cause = cause.__cause__ or cause.__context__
    return "SSL" in str(error)


def _tls(ca_file: Path | None, host: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=ca_file)
        except (OSError, ssl.SSLError):
            raise UsageError(
                f"{ca_file} is no file with certificates in PEM.", f"Name the authority of {host} with --ca-file FILE."
            ) from None
    return context
