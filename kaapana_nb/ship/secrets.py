"""Secrets in a text: keys, tokens, passwords, found by the detectors of bc-detect-secrets.

Only what a detector sees in the text counts; none is asked to try a secret out at the service that it
belongs to, and a comment that asks to be skipped is not obeyed. Left out is the detector for random
hexadecimal text, which digests and UIDs are full of.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from typing import Any

from detect_secrets.filters import heuristic
from detect_secrets.plugins.high_entropy_strings import Base64HighEntropyString
from detect_secrets.plugins.keyword import CONFIG_DENYLIST_REGEX_TO_GROUP, QUOTES_REQUIRED_DENYLIST_REGEX_TO_GROUP

_TOKENS = (
    "artifactory.ArtifactoryDetector", "aws.AWSKeyDetector", "azure_storage_key.AzureStorageKeyDetector",
    "basic_auth.BasicAuthDetector", "cloudant.CloudantDetector", "discord.DiscordBotTokenDetector",
    "github_token.GitHubTokenDetector", "ibm_cloud_iam.IbmCloudIamDetector", "ibm_cos_hmac.IbmCosHmacDetector",
    "jwt.JwtTokenDetector", "mailchimp.MailchimpDetector", "npm.NpmDetector",
    "sendgrid.SendGridDetector", "slack.SlackDetector", "softlayer.SoftlayerDetector",
    "square_oauth.SquareOAuthDetector", "stripe.StripeDetector", "twilio.TwilioKeyDetector",
)  # fmt: skip
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY.*|PuTTY-User-Key-File-\d.*")
"""The first line says it all; the library's own detector wants the key's body in the same text."""
_TOKEN = re.compile(r"[\w+/=~.-]*")
_UNQUOTED = (".yaml", ".yml", ".toml", ".ini", ".cfg", ".conf", ".env", ".properties")
_ENTROPY_LIMIT = 4.5  # bits per character: the detector's own default
_LONGEST_LINE = 1000  # longer ones are searched in parts that overlap: the patterns take quadratic time
_QUOTES = ("'", '"', "`")


def find_secrets(text: str, *, suffix: str = "") -> Iterator[tuple[int, int, str]]:
    """Where secrets stand in a text: start, end and what they are.

    Parameters
    ----------
    suffix
        Of the file; in configuration files values stand without quotes.
    """
    offset = 0
    for line in text.splitlines(keepends=True):
        for start in range(0, len(line), _LONGEST_LINE // 2):
            part = line[start : start + _LONGEST_LINE]
            yield from _find_in_line(part, offset + start, suffix)
            if start + _LONGEST_LINE >= len(line):
                break
        offset += len(line)


def _find_in_line(line: str, offset: int, suffix: str) -> Iterator[tuple[int, int, str]]:
    found = [(secret, detector.secret_type) for detector in _detectors() for secret in detector.analyze_string(line)]
    entropy, keyword = _guessers()
    rules = CONFIG_DENYLIST_REGEX_TO_GROUP if suffix in _UNQUOTED else QUOTES_REQUIRED_DENYLIST_REGEX_TO_GROUP
    guesses = [
        (secret, entropy.secret_type)
        for secret in entropy.analyze_string(line)
        if entropy.calculate_shannon_entropy(secret) > _ENTROPY_LIMIT
    ]
    if suffix in _UNQUOTED or any(quote in line for quote in _QUOTES):
        guesses += [(secret, keyword.secret_type) for secret in keyword.analyze_string(line, rules)]
    found += [(secret, kind) for secret, kind in guesses if not _is_placeholder(secret, line)]
    found += [(match.group(), "Private Key") for match in _PRIVATE_KEY.finditer(line)]
    for secret, kind in dict.fromkeys(found):
        start = line.find(secret := secret.strip()) if secret.strip() else -1
        if start >= 0:
            # Some detectors name a part of the secret only: what hangs on to it belongs to it.
            rest = _TOKEN.match(line, start + len(secret))
            yield offset + start, offset + (rest.end() if rest else start + len(secret)), kind


def _is_placeholder(secret: str, line: str) -> bool:
    """What only looks like a secret: a template, a variable, a call, a UUID, the alphabet."""
    return bool(
        heuristic.is_templated_secret(secret)
        or heuristic.is_prefixed_with_dollar_sign(secret)
        or heuristic.is_indirect_reference(line)
        or heuristic.is_potential_uuid(secret)
        or heuristic.is_sequential_string(secret)
        or not any(letter.isalnum() for letter in secret)
    )


@cache
def _detectors() -> tuple[Any, ...]:
    names = (name.split(".") for name in _TOKENS)
    return tuple(getattr(import_module(f"detect_secrets.plugins.{module}"), kind)() for module, kind in names)


@cache
def _guessers() -> tuple[Any, Any]:
    from detect_secrets.plugins.keyword import KeywordDetector

    return Base64HighEntropyString(limit=_ENTROPY_LIMIT), KeywordDetector()
