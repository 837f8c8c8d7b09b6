"""What identifies the patients of a batch, in every form in which it may be written down.

Read from DICOM headers: everything that PS3.15 Annex E wants removed and that a text can hold.
A value that would be found by chance is not searched for; the rules are `SHORTEST` and `COMMON`.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from kaapana_nb.ship.privacy_search import Matcher, Needle, fold, words_of

if TYPE_CHECKING:
    from pydicom import Dataset

    from kaapana_nb.data.batch import Batch, BatchElement

SHORTEST: Mapping[str, int] = MappingProxyType({"name": 4, "given name": 5, "number": 5, "phrase": 8, "UID": 10})
"""Characters (without gaps) from which on a value is searched for.

``name`` is a family name alone, ``given name`` a given name alone, ``number`` an id (which must hold a digit),
``phrase`` an institution or address. Names in other scripts than Latin count double: two ideographs are a name.
Whole names, family with given, are searched for whatever their length, if both have two letters.
"""

COMMON = frozenset(
    {
        "abdomen", "admin", "anon", "anonym", "anonymised", "anonymized", "anonymous", "batch", "body", "bone", "brain",
        "case", "cases", "chest", "class", "clinic", "demo", "department", "docker", "doctor", "dummy", "example",
        "false", "field", "head", "heart", "hospital", "image", "images", "import", "input", "institut", "institute",
        "kernel", "kidney", "klinik", "klinikum", "label", "labels", "left", "liver", "long", "lung", "main", "mask",
        "name", "neck", "nobody", "noname", "none", "notebook", "null", "numpy", "operator", "output", "pandas",
        "patient", "person", "phantom", "physician", "print", "python", "radiologie", "radiology", "range", "removed",
        "return", "right", "sample", "scikit", "series", "slice", "slices", "study", "technologist", "test", "testing",
        "tests", "thorax", "true", "unbekannt", "undefined", "university", "unknown", "user", "value", "values",
        "volume", "young",
    }
)  # fmt: skip
"""Values (folded) that stand in headers and in any program alike: not searched for alone."""

_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "PatientName": "patient name",
        "OtherPatientNames": "patient name",
        "PatientBirthName": "patient name",
        "PatientMotherBirthName": "patient name",
        "ResponsiblePerson": "patient name",
    }
)
_NUMBERS: Mapping[str, str] = MappingProxyType(
    {
        "PatientID": "patient id",
        "OtherPatientIDs": "patient id",
        "MedicalRecordLocator": "patient id",
        "PatientTelephoneNumbers": "telephone number",
        "AccessionNumber": "accession number",
        "AdmissionID": "admission id",
        "ServiceEpisodeID": "admission id",
        "StudyID": "study id",
        "RequestedProcedureID": "procedure id",
        "ScheduledProcedureStepID": "procedure id",
        "PerformedProcedureStepID": "procedure id",
        "PlacerOrderNumberImagingServiceRequest": "order number",
        "FillerOrderNumberImagingServiceRequest": "order number",
        "DeviceSerialNumber": "device serial number",
    }
)
_PHRASES: Mapping[str, str] = MappingProxyType(
    {
        "InstitutionName": "institution",
        "InstitutionAddress": "institution address",
        "PatientAddress": "patient address",
        "RequestingService": "institution",
    }
)
_DATES: Mapping[str, str] = MappingProxyType({"PatientBirthDate": "birth date"})
_STANDARD_ROOT = "1.2.840.10008."  # UIDs of DICOM itself: classes, syntaxes
_UID = re.compile(r"[0-9]+(\.[0-9]+)+\Z")
_MONTHS = (
    ("january", "jan", "januar"), ("february", "feb", "februar"), ("march", "mar", "märz"),
    ("april", "apr"), ("may", "mai"), ("june", "jun", "juni"), ("july", "jul", "juli"), ("august", "aug"),
    ("september", "sep", "sept"), ("october", "oct", "oktober", "okt"), ("november", "nov"),
    ("december", "dec", "dezember", "dez"),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Identifiers:
    """The values to search for.

    Attributes
    ----------
    needles
        Names, numbers, dates and phrases, in all their forms.
    uids
        Study, series, instance and every other UID of the headers.
    words
        Every telling word of the values, also of those too short to be searched for: no excerpt shows one.
    unread
        Elements without a readable DICOM header: their patients are not known.
    """

    needles: frozenset[Needle] = field(default=frozenset(), repr=False)
    uids: frozenset[str] = field(default=frozenset(), repr=False)
    words: frozenset[str] = field(default=frozenset(), repr=False)
    unread: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.needles) + len(self.uids)

    def matcher(self) -> Matcher:
        """A search for all of them."""
        return Matcher(self.needles, self.uids)

    def key(self) -> bytes:
        """A key that only a holder of the batch can make: a hash over all its UIDs; empty without any."""
        return hashlib.sha256("\n".join(sorted(self.uids)).encode()).digest() if self.uids else b""


def collect_identifiers(batch: Batch, *, every_instance: bool = False) -> Identifiers:
    """Read the identifiers of a batch: one header per series and the UIDs in file names.

    Parameters
    ----------
    every_instance
        Read each file instead; takes about a millisecond per instance.
    """
    needles: set[Needle] = set()
    uids: set[str] = set()
    unread = []
    for element in batch:
        uids.update(_named_uids(element))
        known = False
        for header in _headers(element, every_instance):
            known = True
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about values that are not as the standard wants them
                needles.update(_needles(header, uids))
        if not known:
            unread.append(element.name)
    return Identifiers(
        needles=frozenset(needle for needle in needles if _is_searched(needle)),
        uids=frozenset(uid for uid in uids if len(uid) >= SHORTEST["UID"] and not uid.startswith(_STANDARD_ROOT)),
        words=frozenset(word for needle in needles for word in words_of(needle.value) if _is_telling(needle, word)),
        unread=tuple(unread),
    )


def _named_uids(element: BatchElement) -> Iterator[str]:
    yield from (name for name in (element.name,) if _UID.match(name))
    for path in element.element_dir.glob("*/*"):
        if _UID.match(path.name.removesuffix(".dcm")):
            yield path.name.removesuffix(".dcm")


def _headers(element: BatchElement, every_instance: bool) -> Iterator[Dataset]:
    """Headers from whichever operator's directory holds DICOM: after a converter the input is none."""
    import pydicom

    for path in _files(element.element_dir):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                header = pydicom.dcmread(path, stop_before_pixels=True)
        except Exception:  # noqa: BLE001, S112 - no DICOM, or damaged: others of the series tell
            continue
        yield header
        if not every_instance:
            return


def _files(directory: Path) -> Iterator[Path]:
    """Files below the operators' directories, the usual input first."""
    operators = sorted(
        (path for path in directory.iterdir() if path.is_dir()), key=lambda path: "input" not in path.name
    )
    for operator in operators:
        yield from (path for path in sorted(operator.rglob("*")) if path.is_file())


def _needles(header: Dataset, uids: set[str]) -> Iterator[Needle]:
    """The values of a header, nested sequences included; UIDs go into `uids`."""
    for tag in header.keys():  # noqa: SIM118 - iterating a Dataset reads the values, and a damaged one ends it
        try:
            element = header[tag]
            if element.VR == "SQ":
                for item in element.value:
                    yield from _needles(item, uids)
                continue
            values = [str(value) for value in (element.value if element.VM > 1 else [element.value])]
        except Exception:  # noqa: BLE001, S112 - a damaged value cannot be searched for
            continue
        if element.VR == "UI":
            uids.update(values)
        for value in values:
            yield from _value_needles(element.keyword, element.VR, value)


def _value_needles(keyword: str, representation: str, value: str) -> Iterator[Needle]:
    if representation == "PN":
        yield from name_needles(value, _NAMES.get(keyword, "name of staff"))
    elif keyword in _NUMBERS:
        yield from _number_needles(value, _NUMBERS[keyword])
    elif keyword in _PHRASES:
        yield from _phrase_needles(value, _PHRASES[keyword])
    elif keyword in _DATES:
        yield from date_needles(value, _DATES[keyword])


def name_needles(name: str, kind: str) -> Iterator[Needle]:
    """A person name (PS3.5 6.2.1) in all orders of its components, and its family and given names alone."""
    for group in name.split("="):
        family, given, middle, prefix, suffix = (*(part.strip() for part in group.split("^")), *[""] * 5)[:5]
        if not given and not middle:  # written without components: "Doe Jane" or "Doe, Jane"
            parts = [part for part in re.split(r"[\s,]+", family) if part]
            family, given = (parts[0], " ".join(parts[1:])) if len(parts) > 1 else (family, "")
        orders = (
            (family, given), (given, family), (family, given, middle), (given, middle, family), (family, middle),
            (prefix, given, middle, family, suffix), (prefix, family),
            (family, given, middle, prefix, suffix), (family, given, middle, prefix),
        )  # fmt: skip
        whole = {" ".join(part for part in order if part) for order in orders if sum(map(bool, order)) > 1}
        yield from (Needle(kind=kind, value=value) for value in whole)
        alone = {(family, "name"), *((part, "name") for part in re.split(r"[\s'\u2019-]+", family))}
        alone |= {(part, "given name") for part in re.split(r"[\s-]+", f"{given} {middle}")}
        for part, rule in alone:
            if part and part not in whole:
                yield Needle(kind=f"{kind} ({'family' if rule == 'name' else 'given'})", value=part, distinctive=False)


def date_needles(date: str, kind: str) -> Iterator[Needle]:
    """A date (YYYYMMDD) as people and programs write it; its parts in any order, with month names too."""
    if not re.fullmatch(r"[0-9]{8}", date):
        return
    year, month, day = date[:4], int(date[4:6]), int(date[6:])
    forms = {date, f"{day:02d}{month:02d}{year}", f"{month:02d}{day:02d}{year}"}
    for m in {f"{month}", f"{month:02d}"}:
        for d in {f"{day}", f"{day:02d}"}:
            forms |= {f"{year} {m} {d}", f"{d} {m} {year}", f"{m} {d} {year}"}
            for name in _MONTHS[month - 1] if 1 <= month <= 12 else ():
                forms |= {f"{d} {name} {year}", f"{name} {d} {year}", f"{year} {name} {d}", f"{d}th {name} {year}"}
    yield from (Needle(kind=kind, value=form, distinctive=False) for form in forms)


def _number_needles(value: str, kind: str) -> Iterator[Needle]:
    plain = _plain(value)
    for form in {value, plain, plain.lstrip("0")} if plain.isdigit() else {value}:
        # A short run of digits stands in any table of numbers.
        yield Needle(kind=kind, value=form, distinctive=len(plain) >= 8 or not plain.isdigit())


def _phrase_needles(value: str, kind: str) -> Iterator[Needle]:
    yield Needle(kind=kind, value=value)
    yield from (Needle(kind=kind, value=part) for part in re.split(r"[,;\n]", value) if part != value)


def _is_searched(needle: Needle) -> bool:
    """Whether a value is long and rare enough to be searched for."""
    plain = _plain(needle.value)
    if plain in COMMON or not plain:
        return False
    length = len(plain) if plain.isascii() else sum(1 if letter < "\u0370" else 2 for letter in plain)
    if needle.kind.endswith("date"):
        return True
    if needle.kind.endswith("(given)"):
        return length >= SHORTEST["given name"]
    if needle.kind.endswith("(family)"):
        return length >= SHORTEST["name"]
    if needle.kind in _NUMBERS.values():
        return length >= SHORTEST["number"] and any(letter.isdigit() for letter in plain)
    if needle.kind in _PHRASES.values():
        return length >= SHORTEST["phrase"] and not all(word in COMMON for word in words_of(needle.value))
    return length >= 4 and not all(word in COMMON for word in words_of(needle.value))


def _is_telling(needle: Needle, word: str) -> bool:
    """Whether a word of a value, read alone, tells something of it: no part of a date, no house number."""
    short = 3 if word.isdigit() else 1
    return not needle.kind.endswith("date") and len(word.encode()) > short and word not in COMMON


def _plain(value: str) -> str:
    return fold(value)[0].replace(" ", "")
