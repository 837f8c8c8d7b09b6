"""Finding many values in a text at once, however they are written there.

A text is folded before it is searched: upper and lower case, composed and decomposed characters,
width variants and accents do not count, and everything between letters and digits is a gap. Umlauts
are folded in two ways, once to the plain letter and once as they are transliterated (``ue`` for ``ü``).

- Values of at least `LONG` bytes that hold a letter are found wherever they stand, also inside a word and
  with other gaps: ``Doe^Jane Ann`` in ``doe_janeann.nrrd``.
- All others are found as whole words: runs of letters and runs of digits.
- UIDs are found as a whole or as the beginning of a longer UID.

The time is linear in the text and does not depend on how many values there are.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LONG = 8
"""From this many bytes on (folded, UTF-8) a value with a letter is searched inside words as well."""

_CHUNK = 1 << 18
_OVERLAP = 2048  # longer than any value: a DICOM text of 1024 characters at most
_WORD = re.compile(r"[0-9]+|[^\W\d_]+")
_UID = re.compile(r"[0-9]+(?:\.[0-9]+){2,}")
_LETTERS = {"ł": "l", "đ": "d", "ð": "d", "\u0131": "i", "þ": "th", "æ": "ae", "œ": "oe", "ø": "o"}
_SPELLED = {"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "ø": "oe"}
_TABLE_BITS = 20
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2^64 divided by the golden ratio: spreads neighbouring values


class _Folding(dict[int, str]):
    """What becomes of each character; `str.translate` asks for one at a time, and it is kept."""

    def __init__(self, letters: dict[str, str]) -> None:
        super().__init__()
        self._letters = letters

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if unicodedata.category(character) == "Cf":  # soft hyphens, zero-width characters
            folded = ""
        else:
            low = "".join(self._letters.get(letter, letter) for letter in character.casefold())
            parts = unicodedata.normalize("NFKD", low).casefold()
            letters = (part for part in parts if not unicodedata.category(part).startswith("M"))
            folded = "".join(_digit(letter) if letter.isalnum() else " " for letter in letters)
        self[code] = folded
        return folded


def _digit(letter: str) -> str:
    return str(unicodedata.decimal(letter, letter))


_FOLDINGS = (_Folding(_LETTERS), _Folding(_LETTERS | _SPELLED))


@dataclass(frozen=True, slots=True, kw_only=True)
class Needle:
    """A value to search for.

    Attributes
    ----------
    kind
        What it is, for people: ``patient name``.
    distinctive
        Whether it can hardly occur by chance. A single name or a date can: it is not searched in
        packages that others published.
    """

    kind: str
    value: str
    distinctive: bool = True

    def __repr__(self) -> str:
        return f"Needle(kind={self.kind!r})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """Where a value stands in a text; `value` is its folded form."""

    start: int
    end: int
    kind: str
    value: str

    def __repr__(self) -> str:
        return f"Hit({self.start}, {self.end}, {self.kind!r})"


class Matcher:
    """Searches texts for a fixed set of values."""

    def __init__(self, needles: Iterable[Needle], uids: Iterable[str] = ()) -> None:
        self._uids = frozenset(uids)
        self._words: dict[str, dict[tuple[str, ...], Needle]] = {}
        self._long: dict[bytes, dict[bytes, Needle]] = {}
        for needle in needles:
            for form in fold(needle.value):
                self._add(form, needle)
        self._table = np.zeros(1 << _TABLE_BITS, np.bool_)
        for key in self._long:
            self._table[_hashes(np.frombuffer(key, np.uint8))] = True

    def _add(self, form: str, needle: Needle) -> None:
        squeezed = form.replace(" ", "").encode()
        if len(squeezed) >= LONG and not squeezed.isdigit():
            table, key, value = self._long, squeezed[:LONG], squeezed
            known = table.setdefault(key, {}).setdefault(value, needle)
            if needle.distinctive and not known.distinctive:
                table[key][value] = needle
        elif words := tuple(_WORD.findall(form)):
            rarest = max(words, key=len)
            other = self._words.setdefault(rarest, {}).setdefault(words, needle)
            if needle.distinctive and not other.distinctive:
                self._words[rarest][words] = needle

    def find(self, text: str, *, distinctive_only: bool = False, long_only: bool = False) -> list[Hit]:
        """Every place where a value stands, by position; hits that overlap become one.

        The positions are those of the composed text (`composed`). With `long_only` values that are
        searched for as whole words are left out.
        """
        text = composed(text)
        hits: list[Hit] = []
        for first in range(0, max(len(text), 1), _CHUNK):
            before = max(0, first - _OVERLAP)  # a word that is cut in two is none
            for hit in self._find_in_chunk(text[before : first + _CHUNK + _OVERLAP], distinctive_only, long_only):
                start, end = hit.start + before, hit.end + before
                if first <= start < first + _CHUNK:
                    hits.append(Hit(start=start, end=end, kind=hit.kind, value=hit.value))
        return _longest(hits)

    def _find_in_chunk(self, text: str, distinctive_only: bool, long_only: bool) -> Iterator[Hit]:
        yield from self._find_uids(text)
        foldings = _FOLDINGS[:1] if text.isascii() else _FOLDINGS
        for folding in foldings:
            form = text.translate(folding)
            words = () if long_only else self._find_words(form)
            found = [
                (start, end, value, needle)
                for start, end, value, needle in itertools.chain(words, self._find_long(form))
                if needle.distinctive or not distinctive_only
            ]
            if found:
                source = [index for index, letter in enumerate(text) for _ in folding[ord(letter)]]
                for start, end, value, needle in found:
                    yield Hit(start=source[start], end=source[end - 1] + 1, kind=needle.kind, value=value)

    def _find_uids(self, text: str) -> Iterator[Hit]:
        if not self._uids:
            return
        plain = text if text.isascii() else text.translate(_DIGITS)
        for match in _UID.finditer(plain):
            token = match.group()
            for end in itertools.chain((m.start() for m in re.finditer(r"\.", token)), (len(token),)):
                if token[:end] in self._uids:
                    yield Hit(start=match.start(), end=match.start() + end, kind="UID", value=token[:end])

    def _find_words(self, form: str) -> Iterator[tuple[int, int, str, Needle]]:
        words = _WORD.findall(form)
        if self._words.keys().isdisjoint(words):
            return
        found = [
            (first, value, needle)
            for index, word in enumerate(words)
            if word in self._words
            for value, needle in self._words[word].items()
            if (first := index - value.index(word)) >= 0 and tuple(words[first : first + len(value)]) == value
        ]
        places = [match.span() for match in _WORD.finditer(form)] if found else []
        for first, value, needle in found:
            start, end = places[first][0], places[first + len(value) - 1][1]
            # A short lone number inside a word is part of a hash or a version.
            inside = (form[max(start - 1, 0) : start] + form[end : end + 1]).strip()
            if inside and len(value) == 1 and value[0].isdigit() and len(value[0]) < LONG:
                continue
            yield start, end, " ".join(value), needle

    def _find_long(self, form: str) -> Iterator[tuple[int, int, str, Needle]]:
        squeezed = form.replace(" ", "").encode()
        if len(squeezed) < LONG or not self._long:
            return
        places = np.flatnonzero(self._table[_hashes(np.frombuffer(squeezed, np.uint8))])
        found = [
            (int(place), value, needle)
            for place in places
            for value, needle in self._long.get(squeezed[place : place + LONG], {}).items()
            if squeezed.startswith(value, place)
        ]
        if found:
            source = [index for index, letter in enumerate(form) if letter != " " for _ in letter.encode()]
            for place, value, needle in found:
                yield source[place], source[place + len(value) - 1] + 1, value.decode(), needle


def composed(text: str) -> str:
    """The text with each accent in one character with its letter; `Hit` counts in this form."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def fold(text: str) -> tuple[str, ...]:
    """The one or two folded forms of a text."""
    text = composed(text)
    return tuple(dict.fromkeys(text.translate(folding) for folding in _FOLDINGS))


def words_of(text: str) -> set[str]:
    """The words of every folded form."""
    return {word for form in fold(text) for word in _WORD.findall(form)}


class _PlainDigits(dict[int, str]):
    """Digits and full stops of other scripts and widths as ASCII ones, one for one."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        plain = unicodedata.normalize("NFKC", character)
        self[code] = plain if plain == "." else str(unicodedata.decimal(character, character))
        return self[code]


_DIGITS = _PlainDigits()


def _hashes(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.intp]:
    """A number below 2^20 for each window of `LONG` bytes."""
    count = data.size - LONG + 1
    windows = np.zeros(count, np.uint64)
    for offset in range(LONG):
        windows |= data[offset : offset + count].astype(np.uint64) << np.uint64(8 * offset)
    return ((windows * _MIX) >> np.uint64(64 - _TABLE_BITS)).astype(np.intp)


def _longest(hits: list[Hit]) -> list[Hit]:
    kept: list[Hit] = []
    for hit in sorted(hits, key=lambda hit: (hit.start, -hit.end)):
        if kept and hit.start < kept[-1].end:
            if hit.end - hit.start > kept[-1].end - kept[-1].start:
                kept[-1] = Hit(start=kept[-1].start, end=hit.end, kind=hit.kind, value=hit.value)
            elif hit.end > kept[-1].end:
                last = kept[-1]
                kept[-1] = Hit(start=last.start, end=hit.end, kind=last.kind, value=last.value)
            continue
        kept.append(hit)
    return kept
