"""An OCI registry over its HTTP API: probe, fetch, mount, upload.

Sources: OCI distribution specification 1.1; Docker's registry token authentication. Credentials are
sent only to the registry (basic) or to the token server that it names, over TLS unless plain HTTP was asked for.
"""

from __future__ import annotations

import hashlib
import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import httpx

from kaapana_nb.clients.layout import verify_blob
from kaapana_nb.clients.oci import INDEXES, MANIFESTS, MAX_DOCUMENT, Descriptor, parse_document, sha256
from kaapana_nb.clients.registry_http import RETRIES, Wire, pause_s
from kaapana_nb.clients.registry_upload import transfer
from kaapana_nb.errors import RegistryError
from kaapana_nb.reference import is_digest

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from kaapana_nb.clients.credentials import Credentials
    from kaapana_nb.clients.registry_errors import Answer

CHUNK = 16 << 20
"""Bytes of one upload request. A broken connection costs at most this much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """How a blob got into a repository: bytes sent, and whether it was there or mounted instead."""

    bytes_sent: int = 0
    mounted: bool = False


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
        self._chunk = chunk
        self._wire = Wire(host, credentials, transport, ca_file, plain_http, timeout_s, sleep)

    def __repr__(self) -> str:
        return f"RegistryClient({self.host!r}, user={self._wire.auth.user!r})"

    @property
    def identity(self) -> str:
        """Who asks, for messages: a user's name and where it was found, or nobody."""
        credentials = self._wire.auth.credentials
        if credentials is None:
            return "anyone"
        name = credentials.username or "the holder of an identity token"
        return f"{name} (credentials from {credentials.source})" if credentials.source else name

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._wire.close()

    # Asking

    def probe(self, push_to: str = "") -> None:
        """Check that the registry answers, takes the credentials and, for a repository, would take a push.

        Raises
        ------
        RegistryError
            With the cause, after about a second at most for a registry on this machine that is down.
        """
        what = f"push to {push_to}" if push_to else "answer"
        response = self._wire.send(
            "GET", "/v2/", what, scope=f"repository:{push_to}:pull,push" if push_to else "", tries=0
        )
        self._wire.expect(response, what, 200)
        if push_to:
            started = self._wire.send("POST", f"/v2/{push_to}/blobs/uploads/", what, scope=_push(push_to), tries=0)
            self._wire.expect(started, what, 202)
            self._wire.send("DELETE", self._wire.location(started), what, scope=_push(push_to), tries=0)

    def manifest(self, repository: str, reference: str) -> tuple[Descriptor, bytes]:
        """Fetch a manifest or index by tag or digest; a digest is checked.

        Raises
        ------
        RegistryError
            When there is none, or the content is not what the digest says.
        """
        what = f"fetch {repository}:{reference}"
        accept = ", ".join((*MANIFESTS, *INDEXES))
        response = self._wire.send(
            "GET", f"/v2/{repository}/manifests/{reference}", what, scope=_pull(repository), headers={"Accept": accept}
        )
        self._wire.expect(response, what, 200)
        data = response.content
        media_type = response.headers.get("content-type", "").partition(";")[0].strip()
        descriptor = Descriptor.of(data, media_type)
        named = reference if is_digest(reference) else response.headers.get("docker-content-digest", descriptor.digest)
        if named != descriptor.digest or len(data) > MAX_DOCUMENT:
            raise self._wire.corrupt(what, named, descriptor.digest)
        return descriptor, data

    def digest_of(self, repository: str, tag: str) -> str | None:
        """The digest that a tag stands for, or ``None``."""
        what = f"look {repository}:{tag} up"
        response = self._wire.send(
            "HEAD", f"/v2/{repository}/manifests/{tag}", what, scope=_pull(repository),
            headers={"Accept": ", ".join((*MANIFESTS, *INDEXES))},
        )  # fmt: skip
        if response.status == 404:
            return None
        self._wire.expect(response, what, 200)
        digest = str(response.headers.get("docker-content-digest", ""))
        return digest if is_digest(digest) else None

    def has_blob(self, repository: str, descriptor: Descriptor) -> bool:
        """Whether the repository has the blob."""
        what = f"look a layer of {repository} up"
        response = self._wire.send(
            "HEAD", f"/v2/{repository}/blobs/{descriptor.digest}", what, scope=_push(repository), redirect=True
        )
        if response.status == 404:
            return False
        self._wire.expect(response, what, 200)
        return True

    def lists_referrers(self, repository: str, digest: str) -> bool:
        """Whether the registry lists referrers itself (distribution specification 1.1)."""
        return self._referrers(repository, digest).status == 200

    def referrers_index(self, repository: str, digest: str) -> dict[str, Any]:
        """The registry's own list of an image's referrers: an index."""
        answer = self._referrers(repository, digest)
        self._wire.expect(answer, f"list the referrers of {repository}", 200)
        return parse_document(answer.content, f"list of referrers of {digest}")

    def _referrers(self, repository: str, digest: str) -> Answer:
        what = f"list the referrers of {repository}"
        return self._wire.send("GET", f"/v2/{repository}/referrers/{digest}", what, scope=_pull(repository))

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
                with self._wire.stream(path, what, _pull(repository), headers) as response:
                    if done and response.status_code != 206:
                        file.seek(0)
                        digest, done = hashlib.sha256(), 0
                    for piece in response.iter_bytes():
                        done += len(piece)
                        if done > descriptor.size:
                            raise self._wire.corrupt(what, descriptor.digest, f"something of more than {done} bytes")
                        digest.update(piece)
                        file.write(piece)
                if done == descriptor.size:
                    break
            except httpx.TransportError as error:
                if attempt == RETRIES:
                    raise self._wire.broken(error, what) from error
                self._wire.sleep(pause_s(attempt))
        if "sha256:" + digest.hexdigest() != descriptor.digest:
            raise self._wire.corrupt(what, descriptor.digest, "sha256:" + digest.hexdigest())

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
            started = self._wire.send("POST", f"/v2/{repository}/blobs/uploads/{query}", what, scope=scope)
            if started.status == 201:
                return Upload(mounted=True)
            if query and started.status in (401, 403, 404):  # nothing may be read there
                started = self._wire.send("POST", f"/v2/{repository}/blobs/uploads/", what, scope=_push(repository))
            self._wire.expect(started, what, 202)
            if source is None:
                self._wire.send("DELETE", self._wire.location(started), what, scope=scope)
                raise RegistryError(
                    f"Registry {self.host} cannot mount layer {descriptor.digest} from {mount_from}.",
                    "Build again with a base image that is here: --base DIR.",
                )
            finished, more = transfer(
                self._wire, self._wire.location(started), descriptor, source, chunk=self._chunk, what=what,
                scope=_push(repository),
            )  # fmt: skip
            sent += more
            if finished:
                return Upload(bytes_sent=sent)
            self._wire.sleep(pause_s(attempt))
        raise RegistryError(
            f"The upload of layer {descriptor.digest} to {self.host} broke {RETRIES + 1} times.",
            "Check the network and the registry's log, then push again.",
        )

    def put_manifest(self, repository: str, reference: str, data: bytes, media_type: str) -> str:
        """Store a manifest under a tag or its digest; give the digest that the registry confirms."""
        what = f"push {repository}:{reference}"
        response = self._wire.send(
            "PUT", f"/v2/{repository}/manifests/{reference}", what, scope=_push(repository),
            headers={"Content-Type": media_type}, content=data,
        )  # fmt: skip
        self._wire.expect(response, what, 201)
        digest = sha256(data)
        seen = response.headers.get("docker-content-digest", digest)
        if seen != digest:
            raise self._wire.corrupt(what, digest, seen)
        return digest


def _push(repository: str) -> str:
    return f"repository:{repository}:pull,push"


def _pull(repository: str) -> str:
    return f"repository:{repository}:pull"
