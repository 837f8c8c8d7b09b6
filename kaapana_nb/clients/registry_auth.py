"""Answers to a registry's challenge: basic authentication, or a bearer token from the server it names.

Sources: RFC 7235 (challenges), RFC 7617 (basic), Docker's registry token and OAuth2 token specifications.
"""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from kaapana_nb.clients.registry_errors import LOGIN, Answer
from kaapana_nb.errors import RegistryError

if TYPE_CHECKING:
    import httpx

    from kaapana_nb.clients.credentials import Credentials

_PARAMETER = re.compile(r'([A-Za-z_]+)="([^"]*)"')


class Authenticator:
    """Holds what a registry wants to see in ``Authorization``, per scope. Safe to share between threads."""

    def __init__(self, client: httpx.Client, host: str, credentials: Credentials | None, *, allow_http: bool) -> None:
        self._client, self._host, self._credentials, self._allow_http = client, host, credentials, allow_http
        self._basic = ""
        self._tokens: dict[str, str] = {}
        self._lock = threading.Lock()

    @property
    def credentials(self) -> Credentials | None:
        """What a challenge is answered with."""
        return self._credentials

    @property
    def user(self) -> str:
        """The user's name, or nothing."""
        return self._credentials.username if self._credentials else ""

    @property
    def has_credentials(self) -> bool:
        """Whether there is anything to answer a challenge with."""
        return self._credentials is not None

    def header(self, scope: str) -> dict[str, str]:
        """The Authorization header for a request of that scope, as far as it is known."""
        with self._lock:
            value = self._tokens.get(scope) or self._basic
        return {"Authorization": value} if value else {}

    def challenged(self, answer: Answer, scope: str, what: str) -> bool:
        """Take a 401 answer in; whether it makes sense to ask once more.

        Raises
        ------
        RegistryError
            When the token server refuses, or lies where credentials must not go.
        """
        challenge = answer.headers.get("www-authenticate", "")
        scheme = challenge.partition(" ")[0].lower()
        sent = answer.authorization
        if scheme == "basic" and self._credentials is not None:
            basic = self._credentials.basic()
            if sent == basic:
                return False
            with self._lock:
                self._basic = basic
            return True
        if scheme == "bearer":
            with self._lock:
                known = self._tokens.get(scope, "")
            if known and sent == known and "error=" in challenge and "invalid_token" not in challenge:
                return False
            token = "Bearer " + self._fetch_token(dict(_PARAMETER.findall(challenge)), scope, what)
            with self._lock:
                self._tokens[scope] = token
            return True
        return False

    def _fetch_token(self, challenge: dict[str, str], scope: str, what: str) -> str:
        realm = challenge.get("realm", "")
        parts = urlsplit(realm)
        if not parts.hostname or (parts.scheme != "https" and not (parts.scheme == "http" and self._allow_http)):
            raise RegistryError(
                f"Registry {self._host} names the token server {realm!r:.120}; an https address was expected.",
                "Have the registry's token realm corrected; credentials are not sent over plain HTTP.",
            )
        scopes = (scope or challenge.get("scope", "")).split()
        wanted: dict[str, str | list[str]] = {"scope": scopes} if scopes else {}
        if service := challenge.get("service"):
            wanted["service"] = service
        credentials = self._credentials
        if credentials is not None and credentials.identity_token:
            form = {
                "grant_type": "refresh_token",
                "refresh_token": credentials.identity_token,
                "client_id": "kaapana-nb",
                "service": challenge.get("service", ""),
                "scope": " ".join(scopes),
            }
            response = self._client.post(realm, data=form)
        else:
            headers = {"Authorization": credentials.basic()} if credentials else {}
            response = self._client.get(realm, params=wanted, headers=headers)
        try:
            document = response.json() if response.status_code == 200 else {}
        except ValueError:
            document = {}
        token = (document.get("token") or document.get("access_token")) if isinstance(document, dict) else None
        if not isinstance(token, str) or not re.fullmatch(r"[!-~]{1,65536}", token):
            who = f"user {self.user!r}" if self.user else "anonymous access"
            raise RegistryError(
                f"The token server {parts.netloc} of registry {self._host} gave {who} no token to {what} "
                f"(status {response.status_code}).",
                LOGIN.format(host=self._host),
            )
        return token
