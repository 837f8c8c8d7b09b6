"""Layers are unpacked below their directory or not at all, on every Python 3.11 and 3.12."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

import pytest

from kaapana_nb.clients import process_runner
from kaapana_nb.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def layer(path: Path, *members: tuple[str, bytes, str]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, kind, link in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            data = b"data" if kind == tarfile.REGTYPE else b""
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture(params=["with", "without"])
def filtering(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With tarfile's own filter, and without it as in Debian 12's Python 3.11.2."""
    if request.param == "without":
        monkeypatch.setattr(process_runner, "_FILTER", {})
    return str(request.param)


def test_files_directories_and_inner_links(tmp_path: Path, filtering: str) -> None:
    members = (("a", tarfile.DIRTYPE, ""), ("a/b", tarfile.REGTYPE, ""), ("a/c", tarfile.SYMTYPE, "b"))
    target = tmp_path / "out"
    target.mkdir()
    process_runner.unpack_layer(layer(tmp_path / "layer.tar", *members), target)
    assert (target / "a" / "c").read_bytes() == b"data"


@pytest.mark.parametrize(
    "members",
    [
        (("../evil", tarfile.REGTYPE, ""),),
        (("a/../../evil", tarfile.REGTYPE, ""),),
        (("/tmp/evil", tarfile.REGTYPE, ""),),
        (("link", tarfile.SYMTYPE, "../.."), ("link/evil", tarfile.REGTYPE, "")),
        (("link", tarfile.SYMTYPE, "/"),),
        (("hard", tarfile.LNKTYPE, "../evil"),),
        (("device", tarfile.CHRTYPE, ""),),
        (("fifo", tarfile.FIFOTYPE, ""),),
    ],
    ids=lambda members: members[-1][0],
)
def test_what_would_leave_is_refused(
    tmp_path: Path, filtering: str, members: tuple[tuple[str, bytes, str], ...], recwarn: Callable[..., object]
) -> None:
    target = tmp_path / "deep" / "out"
    target.mkdir(parents=True)
    with pytest.raises(BuildError):
        process_runner.unpack_layer(layer(tmp_path / "layer.tar", *members), target)
    assert not (tmp_path / "evil").exists()
    assert not (tmp_path / "deep" / "evil").exists()
