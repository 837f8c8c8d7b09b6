"""Credentials for a registry: found where Docker, Podman and Kubernetes keep them, and never shown.

Sources: Docker's ``config.json`` (``auths``, ``credsStore``, ``credHelpers``); containers-auth.json(5), which
adds keys with a path; Kubernetes' ``kubernetes.io/dockerconfigjson`` secrets, which hold the same document.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kaapana_nb.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

USER_VARIABLE = "KAAPANA_NB_REGISTRY_USER"
PASSWORD_VARIABLE = "KAAPANA_NB_REGISTRY_PASSWORD"  # noqa: S105 - a variable's name
_MAX_FILE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """A user's name and password, or an identity token. Neither secret is shown by ``repr``."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    source: str = ""

    def basic(self) -> str:
        """The value of an Authorization header (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def find_credentials(
    host: str, repository: str = "", *, file: Path | None = None, environ: Mapping[str, str] | None = None
) -> Credentials | None:
    """Look credentials up; the first place that has some for `host` counts.

    In order: `file` (a Docker ``config.json`` or ``.dockerconfigjson``), ``KAAPANA_NB_REGISTRY_USER`` and
    ``_PASSWORD``, ``REGISTRY_AUTH_FILE``, Podman's ``auth.json``, Docker's ``config.json``.

    Raises
    ------
    RegistryError
        When a file that was named cannot be read, or holds something else.
    """
    environ = os.environ if environ is None else environ
    if file is not None:
        found = _from_file(file, host, repository, required=True)
        if found is None:
            raise RegistryError(
                f"{file} has no credentials for {host}.",
                f"Write them with `podman login --authfile {file} {host}`, or name another file.",
            )
        return found
    if user := environ.get(USER_VARIABLE):
        return Credentials(username=user, password=environ.get(PASSWORD_VARIABLE, ""), source="environment")
    for path, required in _places(environ):
        found = _from_file(path, host, repository, required=required)
        if found is not None:
            return found
    return None


def _places(environ: Mapping[str, str]) -> Iterator[tuple[Path, bool]]:
    if named := environ.get("REGISTRY_AUTH_FILE"):
        yield Path(named), True
    if runtime := environ.get("XDG_RUNTIME_DIR"):
        yield Path(runtime) / "containers" / "auth.json", False
    home = Path(environ.get("HOME") or Path.home())
    yield Path(environ.get("DOCKER_CONFIG") or home / ".docker") / "config.json", False
    yield home / ".docker" / ".dockerconfigjson", False


def _from_file(path: Path, host: str, repository: str, *, required: bool) -> Credentials | None:
    remedy = f"Write it with `podman login --authfile {path} {host}`."
    try:
        with path.open("rb") as opened:
            data = opened.read(_MAX_FILE)
        document = json.loads(data)
    except OSError as error:
        if required:
            raise RegistryError(f"The credentials file {path} cannot be read ({error.strerror}).", remedy) from None
        return None
    except ValueError:
        document = None
    if not isinstance(document, dict) or not isinstance(document.get("auths", {}), dict):
        if required:
            raise RegistryError(f'The credentials file {path} is no JSON object with "auths".', remedy) from None
        return None
    for key in _keys(host, repository):
        found = _from_document(document, key, path)
        if found is not None:
            return found
    return None


def _keys(host: str, repository: str) -> Iterator[str]:
    """Keys of a registry in an auth file, the longest path first."""
    parts = repository.split("/") if repository else []
    for count in range(len(parts), 0, -1):
        yield f"{host}/{'/'.join(parts[:count])}"
    yield host
    if host in {"docker.io", "registry-1.docker.io"}:
        yield "index.docker.io"


def _from_document(document: dict[str, Any], key: str, path: Path) -> Credentials | None:
    helpers = document.get("credHelpers")
    helper = helpers.get(key) if isinstance(helpers, dict) else None
    entries = {_normal(str(name)): value for name, value in (document.get("auths") or {}).items()}
    entry = entries.get(key)
    if isinstance(entry, dict):
        if token := entry.get("identitytoken"):
            return Credentials(identity_token=str(token), username=str(entry.get("username", "")), source=str(path))
        if entry.get("auth"):
            return _decoded(str(entry["auth"]), key, path)
        if entry.get("username"):
            return Credentials(
                username=str(entry["username"]), password=str(entry.get("password", "")), source=str(path)
            )
        helper = helper or document.get("credsStore")
    return _from_helper(str(helper), key) if helper else None


def _normal(key: str) -> str:
    """``https://host/v1/`` -> ``host``: old Docker versions write addresses as keys."""
    return re.sub(r"/v[12]/?\Z", "", re.sub(r"\Ahttps?://", "", key)).rstrip("/")


def _decoded(text: str, key: str, path: Path) -> Credentials:
    try:
        username, colon, password = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        username = colon = password = ""
    if not colon:
        raise RegistryError(
            f"The entry for {key} in {path} is not base64 of user:password.",
            f"Write it again with `podman login --authfile {path} {key}`.",
        )
    return Credentials(username=username, password=password, source=str(path))


def _from_helper(name: str, key: str) -> Credentials | None:
    """Ask a Docker credential helper; it reads the server's name on its input and answers in JSON."""
    if re.fullmatch(r"[A-Za-z0-9_-]{1,60}", name) is None:
        return None
    try:
        done = subprocess.run(
            [f"docker-credential-{name}", "get"], input=key, capture_output=True, text=True, timeout=10, check=True
        )
        answer = json.loads(done.stdout)
        username, secret = str(answer["Username"]), str(answer["Secret"])
    except (OSError, ValueError, KeyError, TypeError, subprocess.SubprocessError):
        return None
    if username == "<token>":
        return Credentials(identity_token=secret, source=f"docker-credential-{name}")
    return Credentials(username=username, password=secret, source=f"docker-credential-{name}")
