"""The registry client against answers that a well-behaved registry never gives; no network."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import pickle

import httpx
import pytest

from kaapana_nb.clients.credentials import Credentials
from kaapana_nb.clients.oci import MANIFEST, Descriptor
from kaapana_nb.clients.registry import RegistryClient
from kaapana_nb.errors import RegistryError

PASSWORD = "hush-hush-9"
LOGIN = Credentials(username="ada", password=PASSWORD)
BLOB = b"0123456789" * 1000
DESCRIPTOR = Descriptor.of(BLOB, "application/octet-stream")


def client(handler, credentials=LOGIN, host="registry.example.org", **options) -> RegistryClient:
    pauses: list[float] = []
    opened = RegistryClient(
        host, credentials=credentials, transport=httpx.MockTransport(handler), sleep=pauses.append, **options
    )
    opened.pauses = pauses  # type: ignore[attr-defined]
    return opened


def code(status: int, name: str, detail: object = None) -> httpx.Response:
    return httpx.Response(status, json={"errors": [{"code": name, "message": "m", "detail": detail}]})


REFUSALS = [
    (httpx.Response(401, headers={"www-authenticate": "Basic realm=x"}), "refused the password of user 'ada'"),
    (code(403, "DENIED"), "does not allow user 'ada'"),
    (code(405, "UNSUPPORTED"), "is read-only"),
    (code(404, "NAME_UNKNOWN"), "has no such repository"),
    (httpx.Response(413), "takes no upload of that size"),
    (httpx.Response(507), "The disk of registry"),
    (code(500, "UNKNOWN", {"Enclosed": {"Op": "mkdir", "Err": 28}}), "The disk of registry"),
    (httpx.Response(418), "answered 418"),
]


@pytest.mark.parametrize(("answer", "problem"), REFUSALS, ids=lambda value: str(value)[:30])
def test_each_refusal_has_its_own_error(answer, problem):
    with client(lambda request: answer) as opened, pytest.raises(RegistryError) as caught:
        opened.put_manifest("tools/otsu", "1", b"{}", MANIFEST)
    assert problem in caught.value.problem
    assert caught.value.remedy
    text = (
        repr(caught.value)
        + str(caught.value)
        + repr(opened)
        + repr(LOGIN)
        + pickle.dumps(caught.value).decode("latin1")
    )
    assert PASSWORD not in text
    assert base64.b64encode(f"ada:{PASSWORD}".encode()).decode() not in text


def test_no_credentials_is_another_error_than_wrong_ones():
    answer = httpx.Response(401, headers={"www-authenticate": "Basic realm=x"})
    with client(lambda request: answer, credentials=None) as opened, pytest.raises(RegistryError) as caught:
        opened.probe()
    assert "wants credentials" in caught.value.problem
    assert "KAAPANA_NB_REGISTRY_PASSWORD" in caught.value.remedy


def test_failures_are_repeated_with_growing_pauses():
    answers = iter([httpx.Response(503), httpx.Response(502), httpx.ReadError("cut"), httpx.Response(201)])

    def handler(request: httpx.Request) -> httpx.Response:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with client(handler) as opened:
        opened.put_manifest("x", "1", b"{}", MANIFEST)
        assert len(opened.pauses) == 3  # type: ignore[attr-defined]
        assert opened.pauses == sorted(opened.pauses)  # type: ignore[attr-defined]


def test_a_lasting_failure_ends():
    with client(lambda request: httpx.Response(503)) as opened, pytest.raises(RegistryError, match="answered 503"):
        opened.put_manifest("x", "1", b"{}", MANIFEST)

    def cut(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("cut")

    with client(cut) as opened, pytest.raises(RegistryError, match=r"connection to registry .* broke"):
        opened.put_manifest("x", "1", b"{}", MANIFEST)


class TokenServer:
    """A registry that wants bearer tokens, and the server that gives them."""

    def __init__(self, realm: str = "https://auth.example.org/token", gives: str = "token") -> None:
        self.realm, self.gives = realm, gives
        self.asked: list[httpx.Request] = []
        self.expired: set[str] = set()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.host == "auth.example.org":
            self.asked.append(request)
            if request.method == "GET" and request.headers.get("authorization") != LOGIN.basic():
                return httpx.Response(401)
            return httpx.Response(200, json={self.gives: f"t{len(self.asked)}"})
        assert LOGIN.basic() != request.headers.get("authorization")
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not token or token in self.expired:
            challenge = f'Bearer realm="{self.realm}",service="reg"'
            challenge += ',error="invalid_token"' if token else ""
            return httpx.Response(401, headers={"www-authenticate": challenge})
        return httpx.Response(201)


@pytest.mark.parametrize("gives", ["token", "access_token"])
def test_bearer_tokens(gives):
    server = TokenServer(gives=gives)
    with client(server) as opened:
        opened.put_manifest("tools/otsu", "1", b"{}", MANIFEST)
        opened.put_manifest("tools/otsu", "2", b"{}", MANIFEST)
        assert len(server.asked) == 1
        assert dict(server.asked[0].url.params) == {"scope": "repository:tools/otsu:pull,push", "service": "reg"}
        server.expired.add("t1")
        opened.put_manifest("tools/otsu", "3", b"{}", MANIFEST)
        assert len(server.asked) == 2


def test_an_identity_token_is_exchanged():
    server = TokenServer()
    with client(server, credentials=Credentials(identity_token="idt-secret")) as opened:
        opened.put_manifest("x", "1", b"{}", MANIFEST)
    assert b"refresh_token=idt-secret" in server.asked[0].content


def test_a_wrong_password_at_the_token_server():
    wrong = Credentials(username="ada", password="other")
    with (
        client(TokenServer(), credentials=wrong) as opened,
        pytest.raises(RegistryError, match="gave user 'ada' no token"),
    ):
        opened.put_manifest("x", "1", b"{}", MANIFEST)


@pytest.mark.parametrize("realm", ["http://auth.example.org/token", "file:///etc/passwd", ""])
def test_credentials_do_not_go_to_an_unsafe_token_server(realm):
    server = TokenServer(realm=realm)
    with client(server) as opened, pytest.raises(RegistryError, match="an https address was expected"):
        opened.put_manifest("x", "1", b"{}", MANIFEST)
    assert server.asked == []


def test_a_blob_is_checked_on_the_way_in():
    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=BLOB[:-1] + b"X")

    with client(handler) as opened, pytest.raises(RegistryError, match="was expected"):
        opened.fetch_blob("x", DESCRIPTOR, io.BytesIO())
    with client(lambda request: httpx.Response(200, content=BLOB * 2)) as opened, pytest.raises(RegistryError):
        opened.fetch_blob("x", DESCRIPTOR, io.BytesIO())


def test_a_broken_fetch_goes_on_where_it_stopped():
    ranges: list[str | None] = []

    class Cut(httpx.SyncByteStream):
        def __iter__(self):
            yield BLOB[:4000]
            raise httpx.ReadError("cut")

    def handler(request: httpx.Request) -> httpx.Response:
        ranges.append(request.headers.get("range"))
        if len(ranges) == 1:
            return httpx.Response(200, stream=Cut())
        return httpx.Response(206, content=BLOB[4000:])

    file = io.BytesIO()
    with client(handler) as opened:
        opened.fetch_blob("x", DESCRIPTOR, file)
    assert file.getvalue() == BLOB
    assert ranges == [None, "bytes=4000-"]


def test_redirects_of_blobs_go_without_credentials():
    seen: list[tuple[str, str | None]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append((request.url.host, request.headers.get("authorization")))
        if request.url.host == "storage.example.org":
            return httpx.Response(200, content=BLOB)
        if "authorization" not in request.headers:
            return httpx.Response(401, headers={"www-authenticate": "Basic realm=x"})
        return httpx.Response(307, headers={"location": "https://storage.example.org/blob"})

    file = io.BytesIO()
    with client(handler) as opened:
        opened.fetch_blob("x", DESCRIPTOR, file)
    assert file.getvalue() == BLOB
    assert seen[-1] == ("storage.example.org", None)


def test_a_manifest_is_checked_and_bounded():
    def answer(content: bytes, digest: str = "") -> httpx.Response:
        return httpx.Response(200, content=content, headers={"docker-content-digest": digest} if digest else {})

    good = "sha256:" + hashlib.sha256(b"{}").hexdigest()
    with client(lambda request: answer(b"{}", good)) as opened:
        assert opened.manifest("x", "1")[0].digest == good
    with client(lambda request: answer(b"{} ", good)) as opened, pytest.raises(RegistryError, match="was expected"):
        opened.manifest("x", "1")
    with client(lambda request: answer(b"{}")) as opened, pytest.raises(RegistryError, match="was expected"):
        opened.manifest("x", "sha256:" + "0" * 64)
    with client(lambda request: answer(b"x" * (5 << 20))) as opened, pytest.raises(RegistryError, match="more than"):
        opened.manifest("x", "1")


def test_an_upload_is_not_sent_to_plain_http():
    def handler(request: httpx.Request) -> httpx.Response:
        if request.method == "HEAD":
            return httpx.Response(404)
        return httpx.Response(202, headers={"location": "http://registry.example.org/up"})

    with client(handler) as opened, pytest.raises(RegistryError, match="an https address was expected"):
        opened.upload_blob("x", DESCRIPTOR, BLOB)


class Storage:
    """Takes chunked uploads and fails where it is told to."""

    def __init__(self, fail_at: set[int], lose: bool = False) -> None:
        self.fail_at, self.lose = fail_at, lose
        self.calls = 0
        self.uploads: dict[str, bytearray] = {}
        self.stored: dict[str, bytes] = {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if request.method == "HEAD":
            return httpx.Response(200 if path.rpartition("/")[2] in self.stored else 404)
        if request.method == "POST":
            name = f"u{len(self.uploads)}"
            self.uploads[name] = bytearray()
            return httpx.Response(202, headers={"location": f"/v2/x/blobs/uploads/{name}"})
        name = path.rpartition("/")[2]
        data = self.uploads.get(name)
        if data is None:
            return code(404, "BLOB_UPLOAD_UNKNOWN")
        if request.method == "GET":
            headers = {"range": f"0-{max(0, len(data) - 1)}", "location": path}
            return httpx.Response(204, headers=headers)
        self.calls += 1
        if self.calls in self.fail_at:
            data += request.content[: len(request.content) // 2]
            if self.lose:
                del self.uploads[name]
            raise httpx.WriteError("cut")
        if request.method == "PATCH":
            start = int(request.headers["content-range"].partition("-")[0])
            assert start == len(data)
        data += request.content
        if request.method == "PATCH":
            return httpx.Response(202, headers={"location": path})
        digest = str(request.url.params["digest"])
        if digest != "sha256:" + hashlib.sha256(data).hexdigest():
            return code(400, "DIGEST_INVALID")
        self.stored[digest] = bytes(data)
        return httpx.Response(201)


@pytest.mark.parametrize("fail_at", [set(), {1}, {3}, {10}, {1, 2, 3}, {2, 5, 9}], ids=str)
@pytest.mark.parametrize("lose", [False, True])
def test_uploads_go_on_after_breaks(fail_at, lose):
    storage = Storage(fail_at, lose)
    with client(storage, chunk=1000) as opened:
        done = opened.upload_blob("x", DESCRIPTOR, BLOB)
    assert storage.stored[DESCRIPTOR.digest] == BLOB
    if not lose:
        assert done.bytes_sent <= len(BLOB) + 500 * len(fail_at)
    assert done.bytes_sent >= len(BLOB)


def test_an_upload_that_never_works_ends():
    with client(Storage(set(range(100))), chunk=1000) as opened, pytest.raises(RegistryError):
        opened.upload_blob("x", DESCRIPTOR, BLOB)


def test_a_blob_that_is_not_what_it_says_is_not_sent(tmp_path):
    (tmp_path / "blob").write_bytes(b"other")
    storage = Storage(set())
    with client(storage) as opened, pytest.raises(Exception, match="was expected"):
        opened.upload_blob("x", DESCRIPTOR, tmp_path / "blob")
    assert storage.uploads == {}


def test_a_registry_that_stores_something_else():
    def handler(request: httpx.Request) -> httpx.Response:
        if request.method == "HEAD":
            return httpx.Response(404)
        if request.method == "POST":
            return httpx.Response(202, headers={"location": "/up"})
        return httpx.Response(201, headers={"docker-content-digest": "sha256:" + "1" * 64})

    with client(handler) as opened, pytest.raises(RegistryError, match="was expected"):
        opened.upload_blob("x", DESCRIPTOR, BLOB)
    with client(handler) as opened, pytest.raises(RegistryError, match="was expected"):
        opened.put_manifest("x", "1", json.dumps({}).encode(), MANIFEST)
