"""Secrets are found; what only looks like one is not."""

from __future__ import annotations

import time

import pytest

from kaapana_nb.ship.secrets import find_secrets

# Made up for these tests, and put together so that no scanner takes this file for a leak.
AWS = "AKIA" + "QX7P2LMZ4RTW9KDE"
GITHUB = "ghp_" + "a8Kd03mQz71LpWx5Vt92RbYc46NfHsGj0uEo"
JWT = "eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxMjM0NTY3ODkwIn0" + ".dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
KEY = "-----BEGIN RSA " + "PRIVATE KEY-----"


def found(text: str, suffix: str = ".py") -> list[str]:
    return [text[start:end] for start, end, _ in find_secrets(text, suffix=suffix)]


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"aws = boto3.client(key='{AWS}')", AWS),
        (f"git clone https://{GITHUB}@host.example/x.git", GITHUB),
        (f"Bearer {JWT}", JWT),
        (KEY, KEY),
        (f"{{'key': '{KEY}\\nMIIEow'}}", f"{KEY}\\nMIIEow'}}"),
        ('password = "correct-horse-7"', "correct-horse-7"),
        ("requests.get('https://admin:s3cr3tpw@registry.example')", "s3cr3tpw"),
        ('token = "Zm9vYmFyOmJhejE6cXV4Mm5vdGhpbmdoZXJlMTIz"', "Zm9vYmFyOmJhejE6cXV4Mm5vdGhpbmdoZXJlMTIz"),
    ],
)
def test_secrets(text: str, secret: str) -> None:
    assert secret in found(f"first line\n{text}\nlast line\n")


def test_values_without_quotes_in_configuration_files() -> None:
    assert found("password: correct-horse-7\n", ".yaml") == ["correct-horse-7"]
    assert found("password: correct-horse-7\n", ".md") == []


@pytest.mark.parametrize(
    "text",
    [
        "password = getpass.getpass()",
        'password = "${PASSWORD}"',
        'password = "<your password>"',
        "sha256:47c57f441d6cb7973fa3b2ea48d3948df78e3348e1c69e1e2ff19001601fc2f5",
        "numpy==2.4.6 --hash=sha256:7f66edeaec867a0a22ba3b14153b32eb9f9214c5acacc289ebdfb2cf3041f0db",
        "2.25.317984517816259128085835045042089672047",
        "batch = Batch.open('/data/run/batch')",
        "",
    ],
)
def test_what_is_no_secret(text: str) -> None:
    assert found(text) == []


def test_a_comment_cannot_switch_the_search_off() -> None:
    assert found(f"key = '{AWS}'  # pragma: allowlist secret") == [AWS]


def test_positions_count_from_the_start_of_the_text() -> None:
    text = f"ä\n\r\nx = '{AWS}'"
    assert [(start, end) for start, end, _ in find_secrets(text)] == [(text.index(AWS), text.index(AWS) + len(AWS))]


def test_a_secret_far_out_in_a_long_line() -> None:
    assert set(found("x " * 50_000 + AWS + " x" * 50_000)) == {AWS}


def test_long_lines_take_linear_time() -> None:
    start = time.perf_counter()
    found("password" * 50_000)
    found("password'" * 1_000)
    assert time.perf_counter() - start < 20


def test_nobody_is_asked_about_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*_: object) -> None:
        raise AssertionError("the search went to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert found(f"{AWS} {GITHUB} {JWT}") != []
