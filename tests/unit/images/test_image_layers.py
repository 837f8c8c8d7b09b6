"""Layers: the same files give the same bytes, every tool reads them, and nothing damaged gets in."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packaging.version import Version

from kaapana_nb.errors import BuildError
from kaapana_nb.ship.layers import Entry, LayerCache, ZipMember, directories, write_layer
from kaapana_nb.ship.unpack import wheel_entries
from kaapana_nb.ship.wheels import Wheel, hash_file

if TYPE_CHECKING:
    from pathlib import Path

BIG = b"".join(hashlib.sha256(str(number).encode()).hexdigest().encode() for number in range(4000))  # 256 kB


def layer(entries) -> tuple[bytes, str, str]:
    file = io.BytesIO()
    descriptor, diff_id = write_layer(file, entries)
    assert descriptor.digest == "sha256:" + hashlib.sha256(file.getvalue()).hexdigest()
    assert descriptor.size == len(file.getvalue())
    return file.getvalue(), descriptor.digest, diff_id


def as_wheel(path: Path) -> Wheel:
    return Wheel(name="thing", version=Version("1.0"), path=path, sha256=hash_file(path))


names = st.text(alphabet="abcdefghijkäöü-_. ", min_size=1, max_size=120).filter(
    lambda text: text.strip(".") and text == text.strip()
)


@given(st.dictionaries(names, st.binary(max_size=3000), max_size=8), st.randoms())
def test_order_does_not_matter_and_tar_reads_it(files, random):
    entries = [Entry(path=f"top/{name}", content=data) for name, data in files.items()]
    first = layer([*directories(entry.path for entry in entries), *entries])
    random.shuffle(entries)
    second = layer([*entries, *directories(entry.path for entry in entries)])
    assert first == second
    plain = gzip.decompress(first[0])
    assert "sha256:" + hashlib.sha256(plain).hexdigest() == first[2]
    with tarfile.open(fileobj=io.BytesIO(first[0]), mode="r:gz") as archive:
        read = {}
        for member in archive:
            assert (member.uid, member.gid, member.mtime, member.uname) == (0, 0, 0, "")
            if member.isfile():
                opened = archive.extractfile(member)
                assert opened is not None
                read[member.name.removeprefix("top/")] = opened.read()
    assert read == files


def test_a_spliced_member_is_byte_for_byte_the_file(wheel):
    path = wheel({"thing/big.so": BIG, "thing/__init__.py": b"x = 1\n"})
    data, _, diff_id = layer(wheel_entries(as_wheel(path), "/kaapana/packages"))
    with zipfile.ZipFile(path) as archive:
        compressed = archive.getinfo("thing/big.so").compress_size
        assert compressed < len(data) < compressed + 4000
    plain = gzip.decompress(data)
    assert "sha256:" + hashlib.sha256(plain).hexdigest() == diff_id
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        member = tar.getmember("kaapana/packages/thing/big.so")
        opened = tar.extractfile(member)
        assert opened is not None
        assert opened.read() == BIG
        assert member.mode == 0o755


def test_gnu_gzip_and_tar_read_it(wheel, tmp_path):
    data, _, _ = layer(wheel_entries(as_wheel(wheel({"thing/big.so": BIG})), "/p"))
    (tmp_path / "layer.tar.gz").write_bytes(data)
    subprocess.run(["tar", "-xzf", "layer.tar.gz"], cwd=tmp_path, check=True)
    assert (tmp_path / "p/thing/big.so").read_bytes() == BIG


def test_stored_members_are_compressed(wheel):
    deflated = layer(wheel_entries(as_wheel(wheel({"thing/big.so": BIG})), "/p"))[2]
    stored = layer(wheel_entries(as_wheel(wheel({"thing/big.so": BIG}, stored=True)), "/p"))[2]
    assert deflated == stored


@pytest.mark.parametrize("position", [40, 2000, 60_000, -200])
def test_a_damaged_wheel_is_refused(wheel, position):
    path = wheel({"thing/big.so": BIG})
    data = bytearray(path.read_bytes())
    for offset in range(8):
        data[position + offset] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(BuildError) as caught:
        layer(wheel_entries(as_wheel(path), "/p"))
    assert path.name in caught.value.problem


def test_a_file_that_is_not_what_record_says_is_refused(wheel):
    path = wheel({"thing/big.so": BIG, "thing/a.py": b"a"}, record={"thing/a.py": "A" * 43})
    with pytest.raises(BuildError, match="RECORD says"):
        layer(wheel_entries(as_wheel(path), "/p"))


@pytest.mark.parametrize("name", ["../evil.py", "/etc/evil.py", "thing/../../evil.py", "a/\n.py"])
def test_files_that_would_leave_the_image_are_refused(wheel, name):
    with pytest.raises(BuildError):
        wheel_entries(as_wheel(wheel({name: b"x"})), "/kaapana/packages")


@pytest.mark.parametrize("path", ["", "/abs", "a/../b", "a//b", "./a", "a\x00b", "."])
def test_paths_that_are_none(path):
    with pytest.raises(BuildError):
        Entry(path=path)


def test_bytecode_in_a_wheel_stays_out(wheel):
    path = wheel({"thing/__init__.py": b"", "thing/__pycache__/__init__.cpython-311.pyc": b"x"})
    with pytest.warns(RuntimeWarning, match="__pycache__"):
        entries = wheel_entries(as_wheel(path), "/p")
    assert not [entry for entry in entries if entry.path.endswith(".pyc")]


FULL = {
    "thing/__init__.py": b"def main():\n    return 0\n",
    "thing/big.so": BIG,
    "thing-1.0.data/scripts/tool": b"#!python\nprint('tool')\n",
    "thing-1.0.data/data/share/thing/x.txt": b"x",
    "thing-1.0.dist-info/entry_points.txt": b"[console_scripts]\nthing-main = thing:main\n",
}


def test_the_files_are_those_of_pip(wheel, tmp_path):
    """The same wheel, installed by pip itself with the options of an exported Dockerfile."""
    path = wheel(FULL)
    target = tmp_path / "by-pip"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-cache-dir", "--no-compile", "--no-deps",
               "--no-index", "--find-links", str(tmp_path), "--target", str(target), "thing==1.0"]  # fmt: skip
    subprocess.run(command, check=True)
    by_pip = {file.relative_to(target).as_posix(): file for file in target.rglob("*") if file.is_file()}
    ours = {entry.path.removeprefix("p/"): entry for entry in wheel_entries(as_wheel(path), "/p")}
    assert set(ours) == set(by_pip)
    generated = {"bin/tool", "bin/thing-main", "thing-1.0.dist-info/RECORD"}
    for name, file in by_pip.items():
        entry = ours[name]
        assert entry.mode == file.stat().st_mode & 0o777, name
        if name in generated:
            continue
        content = entry.content
        if isinstance(content, ZipMember):
            content = zipfile.ZipFile(content.archive).read(content.name)
        assert content == file.read_bytes(), name
    record = ours["thing-1.0.dist-info/RECORD"].content
    assert isinstance(record, bytes)
    scripts = ("../../bin/thing-main", "../../bin/tool")  # their first line names the interpreter
    assert [line for line in record.decode().splitlines() if not line.startswith(scripts)] == [
        line for line in by_pip["thing-1.0.dist-info/RECORD"].read_text().splitlines() if not line.startswith(scripts)
    ]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_the_cache_gives_back_what_was_made(tmp_path_factory, data):
    cache = LayerCache(tmp_path_factory.mktemp("cache"))
    made, cached = cache.make("k", lambda: [Entry(path="a", content=data)])
    again, cached_again = cache.make("k", lambda: [Entry(path="a", content=b"something else")])
    assert (cached, cached_again) == (False, True)
    assert made == again
    assert hashlib.sha256(made.file.read_bytes()).hexdigest() == made.descriptor.digest.removeprefix("sha256:")
    made.file.write_bytes(b"cut")
    assert cache.get("k") is None


def test_layers_that_no_build_uses_go(tmp_path):
    cache = LayerCache(tmp_path)
    for key in ("old", "new"):
        cache.make(key, lambda: [Entry(path="a", content=b"x")])
    for path in tmp_path.glob("old.*"):
        os.utime(path, (0, 0))
    cache.prune(3600)
    assert cache.get("old") is None
    assert cache.get("new") is not None
    os.utime(tmp_path / "new.tar.gz", (0, 0))
    assert cache.get("new") is not None  # used again: kept
    cache.prune(3600)
    assert cache.get("new") is not None
