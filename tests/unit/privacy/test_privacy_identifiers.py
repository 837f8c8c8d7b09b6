"""Which values of a batch are searched for, and in which forms."""

from __future__ import annotations

import shutil
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from kaapana_nb.data.batch import Batch
from kaapana_nb.emulator.sample_headers import SERIES
from kaapana_nb.ship.identifiers import Identifiers, collect_identifiers, date_needles, name_needles


@pytest.fixture(scope="module")
def identifiers(sample_run: Path) -> Identifiers:
    return collect_identifiers(Batch.open(sample_run))


@pytest.fixture
def one_series(sample_run: Path, tmp_path: Path) -> Path:
    """A run with one series of one instance, to be changed."""
    source = sample_run / "batch" / SERIES[0].series_uid / "get-input-data"
    target = tmp_path / "run" / "batch" / SERIES[0].series_uid / "get-input-data"
    target.mkdir(parents=True)
    shutil.copy(sorted(source.iterdir())[0], target)
    return tmp_path / "run"


def collected(run: Path, *, every_instance: bool = False, **values: object) -> Identifiers:
    """The identifiers of a run whose instances got other header values."""
    for path in run.glob("batch/*/*/*.dcm"):
        dataset = pydicom.dcmread(path)
        with pydicom.config.disable_value_validation():
            for keyword, value in values.items():
                setattr(dataset, keyword, value)
            dataset.save_as(path)
    return collect_identifiers(Batch.open(run), every_instance=every_instance)


def found(identifiers: Identifiers, text: str) -> list[str]:
    return [hit.kind for hit in identifiers.matcher().find(text)]


@pytest.mark.parametrize("series", SERIES, ids=lambda series: series.key)
def test_every_planted_value_of_the_sample_is_known(identifiers: Identifiers, series: object) -> None:
    study = series.study  # type: ignore[attr-defined]
    for value, kind in (
        (study.patient_name.split("=")[0], "patient name"),
        (study.patient_id, "patient id"),
        (study.other_patient_id, "patient id"),
        (study.birth_date, "birth date"),
        (study.accession_number, "accession number"),
        (study.institution, "institution"),
        (study.address, "institution address"),
        (study.referring_physician.split("=")[0], "name of staff"),
        (study.operator, "name of staff"),
    ):
        assert kind in found(identifiers, f"before {value}, after"), kind
    assert found(identifiers, series.series_uid) == ["UID"]  # type: ignore[attr-defined]
    assert found(identifiers, series.instance_uid(series.first)) == ["UID"]  # type: ignore[attr-defined]


def test_uids_of_all_instances_come_from_file_names(identifiers: Identifiers) -> None:
    for series in SERIES:
        assert {series.instance_uid(index) for index in range(series.first, series.end)} <= identifiers.uids


def test_no_value_in_the_repr(identifiers: Identifiers) -> None:
    text = repr(identifiers) + repr(sorted(map(repr, identifiers.needles)))
    assert not found(identifiers, text)


def test_uids_of_the_standard_are_not_searched_for(identifiers: Identifiers) -> None:
    assert not found(identifiers, "SOPClassUID 1.2.840.10008.5.1.4.1.1.2 in 1.2.840.10008.1.2.1")


@pytest.mark.parametrize(
    "text",
    [
        "Kowalczyk^Berenike^Ida^Dr.^jr.",
        "Kowalczyk, Berenike",
        "Berenike Kowalczyk",
        "berenike_kowalczyk",
        "Dr. Kowalczyk",
        "Berenike Ida KOWALCZYK",
        "Kowalczyk",
        "Berenike",
        "plan-kowalczykB.json",
    ],
)
def test_orders_of_a_name(one_series: Path, text: str) -> None:
    identifiers = collected(one_series, PatientName="Kowalczyk^Berenike^Ida^Dr.^jr.")
    assert [kind.split(" (")[0] for kind in found(identifiers, f"x {text} y")] == ["patient name"]


@pytest.mark.parametrize("name", ["Kowalczyk Berenike", "Kowalczyk, Berenike", "KOWALCZYK  BERENIKE "])
def test_a_name_without_components(one_series: Path, name: str) -> None:
    identifiers = collected(one_series, PatientName=name)
    assert found(identifiers, "Berenike Kowalczyk") == ["patient name"]
    assert found(identifiers, "the Kowalczyk case") == ["patient name (family)"]


def test_short_names_count_together(one_series: Path) -> None:
    identifiers = collected(one_series, PatientName="Wu^Li")
    assert found(identifiers, "Li Wu, WU_LI") == ["patient name"] * 2
    assert not found(identifiers, "wu and li, liwuli")


@pytest.mark.parametrize("name", ["Image^Batch", "Anonymous", "Test^Patient", "", "^", "^^^^", "=="])
def test_a_name_that_is_none_is_not_searched_for(one_series: Path, name: str) -> None:
    identifiers = collected(one_series, PatientName=name)
    assert not found(identifiers, "image batch test patient anonymous ^ = image")


@pytest.mark.parametrize(
    "text",
    [
        "19410923", "1941-09-23", "1941/9/23", "23.09.1941", "23.9.1941", "09/23/1941", "9-23-1941", "23091941",
        "23 Sep 1941", "September 23, 1941", "23. september 1941", "23th Sept 1941", "1941-09-23T00:00:00",
        "geb_1941_09_23.csv",
    ],
)  # fmt: skip
def test_forms_of_a_birth_date(one_series: Path, text: str) -> None:
    identifiers = collected(one_series, PatientBirthDate="19410923")
    assert found(identifiers, f"x {text} y") == ["birth date"]


@pytest.mark.parametrize("text", ["119410923", "194109231", "1941-09-231", "1941 23", "41-09-23"])
def test_what_is_no_birth_date(one_series: Path, text: str) -> None:
    assert not found(collected(one_series, PatientBirthDate="19410923"), text)


@pytest.mark.parametrize("date", ["", "1941", "19419999", "abcdefgh"])
def test_a_broken_birth_date(one_series: Path, date: str) -> None:
    assert "birth date" not in found(collected(one_series, PatientBirthDate=date), "1941-09-23 00 1941")


def test_month_names_cover_the_year() -> None:
    texts = [needle.value for month in range(1, 13) for needle in date_needles(f"1941{month:02d}05", "birth date")]
    assert {"5 märz 1941", "mai 5 1941", "05 dez 1941", "october 5 1941"} <= set(texts)


@pytest.mark.parametrize(
    ("number", "text", "expected"),
    [
        ("0012345678", "id=12345678", True),
        ("0012345678", "0012345678", True),
        ("12-345-678", "12345678", True),
        ("12-345-678", "12 345 678", True),
        ("QX/7731", "qx7731_mask.nrrd", True),
        ("QX/7731", "QX_7731", True),
        ("12345", "in 12345.", True),
        ("12345", "112345 123456 a12345f", False),
        ("1234", "1234", False),
        ("ABCDEF", "abcdef", False),
    ],
)
def test_numbers(one_series: Path, number: str, text: str, expected: bool) -> None:
    assert bool(found(collected(one_series, PatientID=number), text)) is expected


def test_values_in_nested_sequences_are_known(one_series: Path) -> None:
    inner, outer = Dataset(), Dataset()
    inner.PatientID, inner.PersonName, inner.ReferencedSOPInstanceUID = "ZZ-998877", "Abendroth^Wiebke", "2.25.99887766"
    outer.ReferencedImageSequence = Sequence([inner])
    identifiers = collected(one_series, RelatedSeriesSequence=Sequence([outer]))
    assert found(identifiers, "ZZ998877 Wiebke Abendroth 2.25.99887766") == ["patient id", "name of staff", "UID"]


def test_every_instance_is_read_when_asked(one_series: Path) -> None:
    path = next(one_series.glob("batch/*/*/*.dcm"))
    other = pydicom.dcmread(path)
    other.PatientName = "Abendroth^Wiebke"
    other.save_as(path.parent / "zz.dcm")
    assert not found(collected(one_series), "Wiebke Abendroth")
    assert found(collected(one_series, every_instance=True), "Wiebke Abendroth") == ["patient name"]


def test_a_damaged_value_hides_no_other(one_series: Path) -> None:
    path = next(one_series.glob("batch/*/*/*.dcm"))
    data = path.read_bytes()
    at = data.index(b"DS", data.index(b"\x18\x00\x50\x00"))  # SliceThickness
    path.write_bytes(data[: at + 4] + b"x" * 2 + data[at + 6 :])
    assert found(collect_identifiers(Batch.open(one_series)), SERIES[0].study.patient_id) == ["patient id"]


def test_headers_lie_elsewhere_than_the_input(one_series: Path) -> None:
    element = next((one_series / "batch").iterdir())
    (element / "dcm-converter").mkdir()
    (element / "dcm-converter" / "volume.nrrd").write_bytes(b"NRRD")
    identifiers = collect_identifiers(Batch.open(one_series, input_name="dcm-converter"))
    assert found(identifiers, SERIES[0].study.patient_id) == ["patient id"]
    assert identifiers.unread == ()


def test_elements_without_a_header_are_named(one_series: Path) -> None:
    path = next(one_series.glob("batch/*/*/*.dcm"))
    path.write_bytes(b"no DICOM")
    identifiers = collect_identifiers(Batch.open(one_series))
    assert identifiers.unread == (SERIES[0].series_uid,)
    assert found(identifiers, f"{SERIES[0].series_uid} {path.stem}") == ["UID", "UID"]


def test_the_key_is_the_batchs_own(identifiers: Identifiers, one_series: Path) -> None:
    assert len(identifiers.key()) == 32
    assert identifiers.key() != collected(one_series).key()
    assert Identifiers().key() == b""


def test_all_groups_of_a_name() -> None:
    values = {needle.value for needle in name_needles("Wang^XiaoDong=王^小东", "patient name")}
    assert {"Wang XiaoDong", "XiaoDong Wang", "王 小东", "小东 王", "王"} <= values
