"""Where credentials are found, in which order, and that they are never shown."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest

from kaapana_nb.clients.credentials import Credentials, find_credentials
from kaapana_nb.errors import RegistryError

if TYPE_CHECKING:
    from pathlib import Path

HOST = "registry.example.org:5000"


def auth(text: str) -> dict[str, str]:
    return {"auth": base64.b64encode(text.encode()).decode()}


def write(path: Path, document: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def test_the_order_of_places(tmp_path):
    environ = {"HOME": str(tmp_path)}
    assert find_credentials(HOST, environ=environ) is None
    write(tmp_path / ".docker/.dockerconfigjson", {"auths": {HOST: auth("kube:1")}})
    expected = ["kube"]
    write(tmp_path / ".docker/config.json", {"auths": {HOST: auth("docker:2")}})
    expected.append("docker")
    write(tmp_path / "run/containers/auth.json", {"auths": {HOST: auth("podman:3")}})
    expected.append("podman")
    write(tmp_path / "named.json", {"auths": {HOST: auth("named:4")}})
    expected.append("named")
    expected.append("variable")
    steps = [
        {"DOCKER_CONFIG": str(tmp_path / "nothing")},
        {},
        {"XDG_RUNTIME_DIR": str(tmp_path / "run")},
        {"XDG_RUNTIME_DIR": str(tmp_path / "run"), "REGISTRY_AUTH_FILE": str(tmp_path / "named.json")},
        {"REGISTRY_AUTH_FILE": str(tmp_path / "named.json"), "KAAPANA_NB_REGISTRY_USER": "variable",
         "KAAPANA_NB_REGISTRY_PASSWORD": "5"},
    ]  # fmt: skip
    for step, user in zip(steps, expected, strict=True):
        found = find_credentials(HOST, environ={**environ, **step})
        assert found is not None
        assert found.username == user
    own = write(tmp_path / "own.json", {"auths": {HOST: auth("own:with:colon")}})
    found = find_credentials(HOST, file=own, environ={**environ, **steps[-1]})
    assert found == Credentials(username="own", password="with:colon", source=str(own))


def test_the_longest_path_counts(tmp_path):
    file = write(
        tmp_path / "a.json",
        {"auths": {HOST: auth("host:1"), f"{HOST}/team": auth("team:2"), f"{HOST}/team/otsu": auth("otsu:3")}},
    )
    for repository, user in (("other/x", "host"), ("team/x", "team"), ("team/otsu", "otsu"), ("team/otsu/y", "otsu")):
        found = find_credentials(HOST, repository, file=file)
        assert found is not None
        assert found.username == user


@pytest.mark.parametrize("key", [f"https://{HOST}", f"https://{HOST}/v1/", f"http://{HOST}/v2/", f"{HOST}/"])
def test_addresses_as_keys(tmp_path, key):
    found = find_credentials(HOST, file=write(tmp_path / "a.json", {"auths": {key: auth("u:p")}}))
    assert found is not None
    assert found.password == "p"


def test_other_forms(tmp_path):
    plain = write(tmp_path / "p.json", {"auths": {HOST: {"username": "u", "password": "p"}}})
    assert find_credentials(HOST, file=plain) == Credentials(username="u", password="p", source=str(plain))
    token = write(tmp_path / "t.json", {"auths": {HOST: {"identitytoken": "idt", **auth("00000000:")}}})
    found = find_credentials(HOST, file=token)
    assert found is not None
    assert found.identity_token == "idt"


def test_a_credential_helper(tmp_path, monkeypatch):
    helper = tmp_path / "bin/docker-credential-probe"
    helper.parent.mkdir()
    helper.write_text('#!/bin/sh\nread server\nprintf \'{"Username":"%s","Secret":"s"}\' "$1-$server"\n')
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{helper.parent}:/usr/bin:/bin")
    file = write(tmp_path / "a.json", {"credHelpers": {HOST: "probe"}})
    found = find_credentials(HOST, file=file)
    assert found is not None
    assert (found.username, found.password) == (f"get-{HOST}", "s")
    evil = write(tmp_path / "b.json", {"credHelpers": {HOST: "../../bin/sh"}})
    with pytest.raises(RegistryError, match="no credentials for"):
        find_credentials(HOST, file=evil)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read"),
        ("not json", "no JSON object"),
        ("[]", "no JSON object"),
        ('{"auths": []}', "no JSON object"),
        ('{"auths": {}}', "no credentials for"),
        ('{"auths": {"' + HOST + '": {"auth": "%%%"}}}', "not base64"),
        ('{"auths": {"' + HOST + '": {"auth": "aHVzaA=="}}}', "not base64"),
    ],
)
def test_files_that_do_not_help(tmp_path, content, problem):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RegistryError, match=problem) as caught:
        find_credentials(HOST, file=path)
    assert "hush" not in str(caught.value)
    assert "aHVzaA" not in str(caught.value)


def test_secrets_are_not_shown():
    shown = repr(Credentials(username="u", password="hush", identity_token="hush"))
    assert "hush" not in shown
    assert "u" in shown
