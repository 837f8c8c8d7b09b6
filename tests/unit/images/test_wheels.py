"""Choosing wheels for a base image's Python, and reading requirements."""

from __future__ import annotations

import hashlib

import pytest
from packaging.version import Version

from kaapana_nb.clients.oci import ImageConfig
from kaapana_nb.errors import BuildError
from kaapana_nb.ship.wheels import Pin, TargetPython, collect_wheels, find_wheel, read_pins

TARGET = TargetPython(version=(3, 11), machine="x86_64", glibc=28)


def pin(name: str = "numpy", version: str = "2.0.0") -> Pin:
    return Pin(name=name, version=Version(version))


def test_the_most_special_wheel_that_runs_there():
    names = [
        "numpy-2.0.0-cp312-cp312-manylinux_2_17_x86_64.whl",
        "numpy-2.0.0-cp311-cp311-manylinux_2_36_x86_64.whl",
        "numpy-2.0.0-cp311-cp311-musllinux_1_1_x86_64.whl",
        "numpy-2.0.0-cp311-cp311-manylinux_2_17_aarch64.whl",
        "numpy-2.0.0-cp310-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "numpy-2.0.0-py3-none-any.whl",
        "numpy-2.0.1-cp311-cp311-manylinux_2_17_x86_64.whl",
        "not-a-wheel.whl",
    ]
    assert find_wheel(pin(), names, TARGET) == names[4]
    assert find_wheel(pin(), [*names, "numpy-2.0.0-cp311-cp311-manylinux_2_17_x86_64.whl"], TARGET) == (
        "numpy-2.0.0-cp311-cp311-manylinux_2_17_x86_64.whl"
    )
    newer = TargetPython(version=(3, 11), machine="x86_64", glibc=36)
    assert find_wheel(pin(), names, newer) == names[1]
    assert find_wheel(pin(), names[:1], TARGET) is None


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (ImageConfig(architecture="amd64", env=("PYTHON_VERSION=3.12.4",)), ((3, 12), 4, "x86_64", 28)),
        (
            ImageConfig(architecture="arm64", labels={"io.kaapana-nb.python": "3.11.7", "io.kaapana-nb.glibc": "2.36"}),
            ((3, 11), 7, "aarch64", 36),
        ),
    ],
)
def test_the_python_of_a_base(config, expected):
    found = TargetPython.of(config, "base")
    assert (found.version, found.micro, found.machine, found.glibc) == expected
    assert found.environment()["python_full_version"] == found.full


@pytest.mark.parametrize(
    "config",
    [
        ImageConfig(architecture="amd64"),
        ImageConfig(architecture="amd64", env=("PYTHON_VERSION=2.7",)),
        ImageConfig(architecture="s390x", env=("PYTHON_VERSION=3.11.1",)),
    ],
)
def test_a_base_without_a_known_python(config):
    with pytest.raises(BuildError, match="The base image base"):
        TargetPython.of(config, "base")


def test_requirements():
    text = (
        "# comment\n\nNumPy==2.0.0  # inline\nfoo_bar==1.0; python_version < '3.0'\n"
        "tomli==2.0 ; python_version >= '3.11'\n/kaapana/app/wheels/own-0.1-py3-none-any.whl\n"
    )
    assert [str(found) for found in read_pins(text, TARGET, "r.txt")] == [
        "numpy==2.0.0",
        "tomli==2.0",
        "/kaapana/app/wheels/own-0.1-py3-none-any.whl",
    ]


@pytest.mark.parametrize(
    "line",
    ["numpy", "numpy>=1", "numpy==1.*", "numpy==1,==2", "-r other.txt", "--index-url https://example.org/simple",
     "git+https://example.org/x", "x @ https://example.org/x.whl", "/etc/passwd", "numpy==", "!"],
)  # fmt: skip
def test_requirements_that_are_no_pins(line):
    with pytest.raises(BuildError, match=r"r\.txt line 1"):
        read_pins(line, TARGET, "r.txt")


def test_a_package_twice():
    with pytest.raises(BuildError, match="second time"):
        read_pins("a==1\nA==2\n", TARGET, "r.txt")


def test_a_wheelhouse_is_not_filled_from_elsewhere(tmp_path):
    with pytest.raises(BuildError, match=r"has no wheel of numpy==2\.0\.0"):
        collect_wheels([pin()], TARGET, wheels_dir=tmp_path / "wheels", wheelhouse=tmp_path, log=lambda _: None)
    assert not (tmp_path / "wheels").exists()
    with pytest.raises(BuildError, match="is no directory"):
        collect_wheels([pin()], TARGET, wheels_dir=tmp_path, wheelhouse=tmp_path / "none", log=lambda _: None)


def test_pip_that_cannot_download_says_so_without_addresses(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:hush@127.0.0.1:9/simple")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(BuildError) as caught:
        collect_wheels(
            [pin("surely-not-there")], TARGET, wheels_dir=tmp_path / "wheels", wheelhouse=None, log=lambda _: None
        )
    assert "surely-not-there" in caught.value.problem
    assert "hush" not in str(caught.value)
    assert list((tmp_path / "wheels").iterdir()) == []


def test_a_wheel_that_changed_is_hashed_again(tmp_path):
    house = tmp_path / "house"
    house.mkdir()
    wheel = house / "numpy-2.0.0-py3-none-any.whl"

    def hashed() -> str:
        found = collect_wheels([pin()], TARGET, wheels_dir=tmp_path / "w", wheelhouse=house, log=lambda _: None)
        return found["numpy"].sha256

    for content in (b"one", b"two"):
        wheel.write_bytes(content)
        assert hashed() == hashlib.sha256(content).hexdigest()
        assert hashed() == hashlib.sha256(content).hexdigest()
    memo = next(path for path in (tmp_path / "w").iterdir())
    memo.write_text('{"x": 1}')
    assert hashed() == hashlib.sha256(b"two").hexdigest()
    memo.write_text("[")
    assert hashed() == hashlib.sha256(b"two").hexdigest()
