"""The fast walker and pydicom say the same of every real file, and any bytes get a verdict."""

from __future__ import annotations

import random
import re
import time
import tracemalloc
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
import pytest
from dicom_maker import make_dataset, write_series
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from kaapana_nb.data.header import TAGS, InstanceHeader, header_from_dataset
from kaapana_nb.data.reader import Unreadable, read_header
from kaapana_nb.data.series import read_series
from kaapana_nb.data.verdicts import check_series
from kaapana_nb.data.walker import HEAD_BYTES, HeaderWalker
from kaapana_nb.errors import DicomError

REAL = sorted(
    path
    for directory in ("test_files", "charset_files")
    for path in (Path(pydicom.data.__file__).parent / directory).rglob("*")
    if path.is_file()
)
SLOW_S = 5.0
"""No file of less than a megabyte takes this long, whatever is in it; loaded machines included."""


def by_pydicom(path: Path) -> InstanceHeader | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path, stop_before_pixels=True)
            return header_from_dataset(dataset, path, path.stat().st_size)
    except Exception:
        return None


def without_place(header: InstanceHeader) -> InstanceHeader:
    return header._replace(pixel_offset=None, pixel_length=None)


@pytest.mark.parametrize("path", REAL, ids=[path.name for path in REAL])
def test_the_walker_says_what_pydicom_says_or_nothing(path):
    head = path.read_bytes()[: 1 << 17]
    row = HeaderWalker().read(head, path.parent, path.name, path.stat().st_size)
    if row is not None:
        assert without_place(row) == by_pydicom(path)


def test_the_walker_answers_for_most_explicit_little_endian_files():
    answered = [
        path
        for path in REAL
        if HeaderWalker().read(path.read_bytes()[: 1 << 17], path.parent, path.name, path.stat().st_size) is not None
    ]
    assert len(answered) > 100


def test_remembered_layouts_say_what_a_fresh_walk_says():
    walker = HeaderWalker()
    for _ in range(2):
        for path in REAL:
            head, size = path.read_bytes()[: 1 << 17], path.stat().st_size
            fresh = HeaderWalker().read(head, path.parent, path.name, size)
            assert walker.read(head, path.parent, path.name, size) == fresh


def test_layouts_are_used_and_values_are_each_files_own(tmp_path):
    write_series(tmp_path, slices=60, edit=lambda dataset, number: setattr(dataset, "SliceLocation", number * 1.25))
    walker = HeaderWalker()
    for path in sorted(tmp_path.iterdir()):
        data = path.read_bytes()
        row = walker.read(data[:HEAD_BYTES], tmp_path, path.name, len(data))
        assert row is not None
        assert without_place(row) == by_pydicom(path)
        assert data[row.pixel_offset :] == pydicom.dcmread(path).PixelData
    assert len(walker._layouts) == 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    description=st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=60),
    number=st.integers(-(2**31) + 1, 2**31 - 1),
    position=st.tuples(*[st.floats(-1e5, 1e5)] * 3),
    character_set=st.sampled_from(["ISO_IR 192", "ISO_IR 100", "ISO_IR 6", ""]),
)
def test_any_values_are_read_as_pydicom_reads_them(tmp_path, description, number, position, character_set):
    dataset = make_dataset(0, np.zeros((2, 2), np.int16))
    dataset.SpecificCharacterSet = character_set
    codec = {"ISO_IR 192": "utf-8", "ISO_IR 100": "latin-1"}.get(character_set, "ascii")
    dataset.SeriesDescription = description.encode(codec, "ignore").decode(codec)
    dataset.InstanceNumber = number
    dataset.ImagePositionPatient = [f"{value:.6g}" for value in position]
    path = tmp_path / "x.dcm"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.save_as(path, enforce_file_format=True)
    row = read_header(path)
    assert isinstance(row, InstanceHeader)
    assert without_place(row) == by_pydicom(path)
    assert row.instance_number == number


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_other_encodings_give_the_same_row(tmp_path, syntax):
    dataset = make_dataset(3, np.arange(6, dtype=np.int16).reshape(2, 3))
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    expected = read_header(tmp_path / "a.dcm")
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(tmp_path / "b.dcm", enforce_file_format=True)
    row = read_header(tmp_path / "b.dcm")
    assert isinstance(row, InstanceHeader)
    assert isinstance(expected, InstanceHeader)
    same = {"file_name": "", "transfer_syntax_uid": "", "pixel_offset": 0, "file_size": 0, "pixel_length": 0}
    assert row._replace(**same) == expected._replace(**same)
    assert row.transfer_syntax_uid == syntax


def test_sequences_of_undefined_length_are_walked_over(tmp_path):
    dataset = make_dataset(0, np.zeros((2, 2), np.int16))
    inner = pydicom.Dataset()
    inner.CodeValue = "x"
    outer = pydicom.Dataset()
    outer.ProcedureCodeSequence = [inner]
    dataset.RequestAttributesSequence = [outer, inner]
    for sequence in (dataset["RequestAttributesSequence"], outer["ProcedureCodeSequence"]):
        sequence.is_undefined_length = True
        for item in sequence.value:
            item.is_undefined_length_sequence_item = True
    path = tmp_path / "x.dcm"
    dataset.save_as(path, enforce_file_format=True)
    assert path.read_bytes().count(b"\xfe\xff\xdd\xe0") == 2
    row = HeaderWalker().read(path.read_bytes(), tmp_path, path.name, path.stat().st_size)
    assert row is not None
    assert without_place(row) == by_pydicom(path)


def explicit(tag: int, vr: bytes, value: bytes) -> bytes:
    head = (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little") + vr
    if vr == b"OW":
        return head + bytes(2) + len(value).to_bytes(4, "little") + value
    return head + len(value).to_bytes(2, "little") + value


def file_of(syntax: bytes, *elements: bytes) -> bytes:
    return bytes(128) + b"DICM" + explicit(0x00020010, b"UI", syntax) + b"".join(elements)


SOP_CLASS = explicit(0x00080016, b"UI", b"1.2.840.10008.5.1.4.1.1.2\0")
SOP_INSTANCE = explicit(0x00080018, b"UI", b"1.2.3.4\0")
PIXELS = explicit(0x7FE00010, b"OW", b"ab")


def test_the_walker_leaves_tags_out_of_order_to_pydicom(tmp_path):
    plain = b"1.2.840.10008.1.2.1\0"
    in_order = file_of(plain, SOP_CLASS, SOP_INSTANCE, PIXELS)
    assert HeaderWalker().read(in_order, tmp_path, "x", len(in_order)) is not None
    for elements in ((SOP_INSTANCE, SOP_CLASS), (SOP_CLASS, SOP_INSTANCE, SOP_INSTANCE)):
        data = file_of(plain, *elements, PIXELS)
        assert HeaderWalker().read(data, tmp_path, "x", len(data)) is None


def test_layouts_never_vary_in_transfer_syntax(tmp_path):
    packed = PIXELS[:8] + b"\xff\xff\xff\xff" + PIXELS[12:]
    walker = HeaderWalker()
    for syntax in (b"1.2.840.10008.1.2.4.50", b"1.2.840.10008.1.2.5\0", b"1.2.840.10008.1.2.4.70"):
        data = file_of(syntax, SOP_CLASS, SOP_INSTANCE, packed)
        row = walker.read(data, tmp_path, "x", len(data))
        assert row is not None
        assert row.transfer_syntax_uid == syntax.rstrip(b"\0").decode()
    data = file_of(b"1.2.3.4\0", SOP_CLASS, SOP_INSTANCE, packed)
    assert walker.read(data, tmp_path, "x", len(data)) is None


def test_every_tag_of_a_row_has_an_attribute():
    assert set(TAGS.values()) < set(InstanceHeader._fields)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "empty"),
        (b"hello\n", "no DICOM file"),
        (b"\0" * 128 + b"DICM", "no SOPClassUID|ends within"),
        (b"\x08\0\x05\0CS\xff\xff" + b"x" * 50, "no DICOM file|ends within|cannot be read"),
        (
            b"\0" * 128 + b"DICM" + b"\x02\0\x10\0UI\x16\x001.2.840.10008.1.2.1.99" + b"\xff" * 99,
            "cannot be read|no SOP",
        ),
    ],
)
def test_what_is_no_dicom_is_named(tmp_path, data, problem):
    (tmp_path / "x").write_bytes(data)
    result = read_header(tmp_path / "x")
    assert isinstance(result, Unreadable)
    (found,) = [found for found in check_series([result]).problems if found.file_name]
    assert found.severity == "error"
    assert re.search(problem, found.problem)
    assert found.remedy


def test_a_file_that_vanished_or_is_closed_has_a_verdict(tmp_path):
    result = read_header(tmp_path / "gone.dcm")
    assert isinstance(result, Unreadable)
    assert "No such file" in result.problem


def test_a_deflated_bomb_is_inflated_no_further_than_a_header(tmp_path):
    meta = b"\x02\0\x00\0UL\x04\0" + (8 + 22).to_bytes(4, "little") + b"\x02\0\x10\0UI\x16\x001.2.840.10008.1.2.1.99"
    element = b"\x09\0\x10\0UN\0\0" + (3 << 30).to_bytes(4, "little")
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = packer.compress(element) + b"".join(packer.compress(bytes(1 << 20)) for _ in range(64)) + packer.flush()
    (tmp_path / "bomb.dcm").write_bytes(bytes(128) + b"DICM" + meta + body)
    begin = time.monotonic()
    tracemalloc.start()
    try:
        assert isinstance(read_header(tmp_path / "bomb.dcm"), Unreadable)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 32 << 20
    assert time.monotonic() - begin < SLOW_S


def mutants(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """Real files cut at random lengths, or with random bytes changed; mostly in the header."""
    chance = random.Random(seed)
    small = [path for path in REAL if 0 < path.stat().st_size < 60_000]
    for _ in range(count):
        path = chance.choice(small)
        data = bytearray(path.read_bytes())
        if chance.random() < 0.4:
            del data[chance.randrange(len(data)) :]
        else:
            span = chance.choice([len(data), min(len(data), 3000)])
            for _ in range(chance.choice([1, 3, 20])):
                data[chance.randrange(span)] = chance.choice([0, 255, chance.randrange(256)])
        yield path.name, bytes(data)


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_get_one_verdict_and_never_another_error(tmp_path, seed):
    path = tmp_path / "x.dcm"
    for name, data in mutants(seed, 150):
        path.write_bytes(data)
        begin = time.monotonic()
        result = read_header(path)
        assert len([found for found in check_series([result]).problems if found.file_name]) <= 1, name
        if isinstance(result, InstanceHeader):
            try:
                read_series([result])
            except DicomError as error:
                assert error.remedy
        assert time.monotonic() - begin < SLOW_S, name


@pytest.mark.parametrize("seed", range(3))
def test_what_a_walker_has_seen_never_changes_what_it_says(tmp_path, seed):
    write_series(tmp_path, slices=12, edit=lambda dataset, number: setattr(dataset, "SliceLocation", number * 1.25))
    chance = random.Random(seed)
    walker = HeaderWalker()
    files = [path.read_bytes() for path in sorted(tmp_path.iterdir())]
    answered = 0
    for _ in range(1500):
        data = bytearray(chance.choice(files))
        for _ in range(chance.choice([0, 1, 1, 2])):
            data[chance.randrange(132, len(data) - 96)] = chance.choice([0, 32, 49, 92, 255, chance.randrange(256)])
        said = walker.read(bytes(data), tmp_path, "x", len(data))
        assert said == HeaderWalker().read(bytes(data), tmp_path, "x", len(data))
        answered += said is not None
    assert answered > 300
