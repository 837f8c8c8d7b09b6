"""The privacy guard: does anything that identifies a patient, or a secret, stand in files that are to leave?"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from kaapana_nb.errors import PrivacyError
from kaapana_nb.ship.identifiers import Identifiers
from kaapana_nb.ship.privacy_pieces import Piece, pieces, variants
from kaapana_nb.ship.privacy_search import Matcher, composed, words_of
from kaapana_nb.ship.secrets import find_secrets

MASK = "***"
_CONTEXT = 30  # characters of a line shown before and after a finding
_LONGEST = 4096  # characters that a finding may be long
_SHOWN = 10  # findings listed in an error
_WORD = re.compile(r"\w+")
_TOKEN = re.compile(r"[A-Za-z0-9+=-]{32,}")  # may be encoded, a digest, a key: of no help to the reader


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that must not leave.

    Attributes
    ----------
    file
        Path in the export; a member of an archive as ``archive!member``. Masked, where it is the name itself.
    cell
        Number of the notebook cell, from 1 on, or ``None``.
    line
        Line in the file or cell, from 1 on; 0 where there is none (file names, outputs, binary data).
    kind
        What was found.
    excerpt
        The line around it, with this and every other identifier masked.
    fingerprint
        Names the finding, so that it can be allowed. It stays the same when lines move, and changes with
        the value, the line's other content, the file and the batch. It does not give the value away: the
        value goes in under a key made of all UIDs of the batch, which only a holder of the batch has.
        Without a batch only place and surroundings count.
    """

    file: str
    cell: int | None
    line: int
    kind: str
    excerpt: str
    fingerprint: str

    def __str__(self) -> str:
        cell = f", cell {self.cell}" if self.cell is not None else ""
        line = f", line {self.line}" if self.line else ""
        return f"{self.file}{cell}{line}: {self.kind} in {self.excerpt!r} [{self.fingerprint}]"

    def to_json(self) -> dict[str, Any]:
        """The finding as plain values."""
        return {name: getattr(self, name) for name in ("file", "cell", "line", "kind", "excerpt", "fingerprint")}


def scan_files(
    files: Mapping[str, bytes], identifiers: Identifiers, *, allowed: frozenset[str] = frozenset()
) -> tuple[Finding, ...]:
    """Search files, their names included, for the identifiers of a batch and for secrets.

    In wheels, which others published, neither secrets nor names and dates alone are searched for.

    Parameters
    ----------
    files
        Content by path.
    allowed
        Fingerprints of findings that were looked at and may leave.
    """
    scan = _Scan(identifiers)
    return tuple(
        finding
        for path, data in sorted(files.items())
        for finding in scan.file(path, data)
        if finding.fingerprint not in allowed
    )


def require_private(findings: Iterable[Finding]) -> None:
    """Stop when there is a finding.

    Raises
    ------
    PrivacyError
        With the first findings, masked.
    """
    found = list(findings)
    if not found:
        return
    lines = [f"  {finding}" for finding in found[:_SHOWN]]
    more = [f"  and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    noun = "thing that identifies a patient or is secret" if len(found) == 1 else "such things"
    raise PrivacyError(
        "\n".join([f"{len(found)} {noun} would leave:", *lines, *more]),
        "Take it out of the file. If it is none, allow it by its fingerprint: --allow FINGERPRINT",
    )


class _Scan:
    def __init__(self, identifiers: Identifiers) -> None:
        self._matcher: Matcher = identifiers.matcher()
        self._words = identifiers.words
        self._key = identifiers.key()

    def file(self, path: str, data: bytes) -> Iterator[Finding]:
        """Every finding in a file, once per place and value."""
        name = Piece(path=path, text=path, line=0)
        seen = set()
        for piece in itertools.chain([name], pieces(path, data)):
            for finding, value in self._piece(piece):
                place = (piece.path, finding.cell, finding.line, value)
                if place not in seen:
                    seen.add(place)
                    yield finding

    def _piece(self, piece: Piece) -> Iterator[tuple[Finding, str]]:
        if piece.problem:
            yield self._finding(piece, piece.problem, "", MASK, 0), piece.problem
            return
        for variant in variants(piece.text) if piece.plain else (piece.text,):
            text = composed(variant)
            hits = self._matcher.find(text, distinctive_only=piece.published, long_only=piece.long_only)
            spans = [(hit.start, hit.end, hit.kind, hit.value) for hit in hits]
            if piece.plain and not piece.published:
                suffix = PurePosixPath(piece.path).suffix.lower()
                spans += [(start, end, kind, text[start:end]) for start, end, kind in find_secrets(text, suffix=suffix)]
            spans.sort()
            for start, end, kind, value in spans:
                excerpt = self._line(text, start, end, spans) if piece.plain else MASK
                line = text.count("\n", 0, start) + 1 if piece.line is None else piece.line
                yield self._finding(piece, kind, value, excerpt, line), value

    def _finding(self, piece: Piece, kind: str, value: str, excerpt: str, line: int) -> Finding:
        file = self._masked(piece.path)
        file = MASK if self._is_hidden_in(file) else file
        secret = value if self._key else ""
        parts = "\0".join((kind, secret, file, excerpt)).encode("utf-8", "replace")
        digest = hmac.new(self._key, parts, hashlib.sha256).hexdigest()
        return Finding(file=file, cell=piece.cell, line=line, kind=kind, excerpt=excerpt, fingerprint=digest[:16])

    def _line(self, text: str, start: int, end: int, spans: list[tuple[int, int, str, str]]) -> str:
        """The line around a finding, with all that was found in it masked."""
        first = max(text.rfind("\n", 0, start) + 1, start - 40 * _CONTEXT)
        last = text.find("\n", end)
        last = min(len(text) if last < 0 else last, end + 40 * _CONTEXT)
        near = spans[bisect_left(spans, (first - _LONGEST,)) : bisect_left(spans, (last,))]
        before, after = _replaced(text, first, start, near), _replaced(text, end, last, near)
        before, after = self._masked(before), self._masked(after)
        if self._is_hidden_in(f"{before}{MASK}{after}"):  # before it is cut: half an escape cannot be read
            return MASK
        shown = f"{before[-_CONTEXT:]}{MASK}{after[:_CONTEXT]}"
        return "".join(letter if letter.isprintable() else " " for letter in shown).strip()

    def _masked(self, text: str) -> str:
        """The text without any word of an identifier, whatever its length, and without long tokens."""
        text = composed(text)
        spans = [(hit.start, hit.end, hit.kind, hit.value) for hit in self._matcher.find(text)]
        text = _WORD.sub(
            lambda match: MASK if words_of(match.group()) & self._words else match.group(),
            _replaced(text, 0, len(text), spans),
        )
        return _TOKEN.sub(MASK, text)

    def _is_hidden_in(self, text: str) -> bool:
        """Whether an identifier is still there in another form: escaped or encoded."""
        return any(
            self._matcher.find(form) or words_of(form) & self._words
            for piece in pieces("", text.encode("utf-8", "replace"))
            for form in variants(piece.text)
        )


def _replaced(text: str, first: int, last: int, spans: Iterable[tuple[int, int, str, str]]) -> str:
    """``text[first:last]`` with every span masked; they come by position."""
    result, at = [], first
    for start, end, *_ in spans:
        if end <= at or start >= last:
            continue
        result += [text[at : max(start, at)], MASK]
        at = end
    return "".join([*result, text[at:last]])
