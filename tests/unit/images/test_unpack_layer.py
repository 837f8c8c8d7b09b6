"""Layers are unpacked below their directory or not at all, on every Python 3.11 and 3.12."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import kaapana_nb
from kaapana_nb.clients import process_runner
from kaapana_nb.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Callable


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


SYSTEM_PYTHON = "/usr/bin/python3"
UNPACK = """
import sys
from pathlib import Path
from {module} import {function}
{function}(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def system_python(code: str, *words: Path) -> subprocess.CompletedProcess[str]:
    """Run `code` with the machine's own Python and this environment's packages."""
    packages = [str(Path(kaapana_nb.__file__).parents[1]), sysconfig.get_path("purelib")]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(packages)}
    command = [SYSTEM_PYTHON, "-B", "-W", "error", "-c", code, *map(str, words)]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("module", "function"),
    [("kaapana_nb.clients.process_runner", "unpack_layer"), ("kaapana_nb.ship.proot_builder", "unpack_tree")],
)
def test_layer_is_unpacked_by_the_machine_s_own_python(tmp_path: Path, module: str, function: str) -> None:
    """On Debian 12 that is 3.11.2, whose tarfile has no filters."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if not Path(SYSTEM_PYTHON).exists() or version not in system_python("import sys; print(sys.version)").stdout:
        pytest.skip(f"{SYSTEM_PYTHON} is absent or not {version}, for which this environment's packages are made")
    blob = layer(
        tmp_path / "layer.tar",
        ("a", tarfile.DIRTYPE, ""),
        ("a/b", tarfile.REGTYPE, ""),
        ("a/c", tarfile.SYMTYPE, "b"),
        ("a/d", tarfile.LNKTYPE, "a/b"),
    )
    target, outside = tmp_path / "deep" / "out", tmp_path / "deep" / "evil"
    target.mkdir(parents=True)
    code = UNPACK.format(module=module, function=function)
    done = system_python(code, blob, target)
    assert (done.returncode, done.stderr) == (0, "")
    assert (target / "a" / "c").read_bytes() == (target / "a" / "d").read_bytes() == b"data"
    assert (target / "a" / "c").is_symlink()
    refused = system_python(code, layer(tmp_path / "evil.tar", ("../evil", tarfile.REGTYPE, "")), target)
    assert "BuildError" in refused.stderr
    assert not outside.exists()
