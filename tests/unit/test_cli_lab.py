"""``kaapana-nb lab`` without its server: bad input within a second, the workspace's tutorials, the configuration."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from kaapana_nb.cli.main import main
from kaapana_nb.devserver.config import LabConfig
from kaapana_nb.devserver.session import SessionPlan, kernel_environ
from kaapana_nb.devserver.tutorials import copy_tutorials, find_notebook, shipped_notebooks
from kaapana_nb.errors import UsageError


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    directory = tmp_path / "shipped"
    directory.mkdir()
    (directory / "one.ipynb").write_text("version 1")
    return directory


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KAAPANA_NB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KAAPANA_NB_WORKSPACE", str(tmp_path / "workspace"))
    return tmp_path / "workspace"


def content(workspace: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(workspace.glob("*.ipynb"))}


def test_untouched_tutorial_follows_the_shipped_version(shipped: Path, workspace: Path) -> None:
    record = workspace / ".record"
    assert copy_tutorials(shipped, workspace, record) == []
    (shipped / "one.ipynb").write_text("version 2")
    (shipped / "two.ipynb").write_text("new")
    assert copy_tutorials(shipped, workspace, record) == []
    assert content(workspace) == {"one.ipynb": "version 2", "two.ipynb": "new"}


def test_edited_tutorial_is_never_touched(shipped: Path, workspace: Path) -> None:
    record = workspace / ".record"
    copy_tutorials(shipped, workspace, record)
    (workspace / "one.ipynb").write_text("mine")
    assert copy_tutorials(shipped, workspace, record) == []
    assert content(workspace) == {"one.ipynb": "mine"}

    (shipped / "one.ipynb").write_text("version 2")
    notes = copy_tutorials(shipped, workspace, record)
    assert len(notes) == 1
    assert sorted(content(workspace).values()) == ["mine", "version 2"]
    assert content(workspace)["one.ipynb"] == "mine"
    assert copy_tutorials(shipped, workspace, record) == []  # it is told once


def test_notebook_of_the_same_name_that_was_never_ours_is_left(shipped: Path, workspace: Path) -> None:
    workspace.mkdir()
    (workspace / "one.ipynb").write_text("from elsewhere")
    for _ in range(2):
        assert copy_tutorials(shipped, workspace, workspace / ".record") == []
    assert content(workspace) == {"one.ipynb": "from elsewhere"}


def test_lost_tutorial_and_damaged_record_are_made_good(shipped: Path, workspace: Path) -> None:
    record = workspace / ".record"
    copy_tutorials(shipped, workspace, record)
    (workspace / "one.ipynb").unlink()
    record.write_text("[broken")
    copy_tutorials(shipped, workspace, record)
    assert content(workspace) == {"one.ipynb": "version 1"}


def test_repository_s_tutorials_are_found() -> None:
    assert (shipped_notebooks() / "otsus_method.ipynb").is_file()


@pytest.mark.parametrize(
    ("name", "found"), [("one", "one.ipynb"), ("one.ipynb", "one.ipynb"), ("sub/two", "sub/two.ipynb")]
)
def test_notebook_is_found_below_the_workspace(workspace: Path, name: str, found: str) -> None:
    (workspace / "sub").mkdir(parents=True)
    for path in ("one.ipynb", "sub/two.ipynb"):
        (workspace / path).write_text("{}")
    assert find_notebook(workspace, name) == found


@pytest.mark.parametrize("name", ["none", "../outside", "/etc/passwd", ""])
def test_other_notebook_is_refused_with_a_list(workspace: Path, name: str) -> None:
    workspace.mkdir()
    (workspace / "one.ipynb").write_text("{}")
    (workspace.parent / "outside.ipynb").write_text("{}")
    with pytest.raises(UsageError) as caught:
        find_notebook(workspace, name)
    assert "one.ipynb" in caught.value.remedy


def test_kernels_see_the_run_and_no_operator(tmp_path: Path) -> None:
    plan = SessionPlan(workspace=tmp_path, notebook="one.ipynb", run_dir=Path("/runs/r1"), batch_name="batch")
    outer = {"PATH": "/usr/bin", "OPERATOR_IN_DIR": "a", "OPERATOR_OUT_DIR": "b", "WORKFLOW_DIR": "old", "LANG": "C"}
    inner = kernel_environ(outer, plan)
    path = inner.pop("PATH").split(os.pathsep)
    assert inner == {"WORKFLOW_DIR": "/runs/r1", "BATCH_NAME": "batch", "LANG": "C"}
    assert Path(path[0], "python").exists()
    assert path[1:] == ["/usr/bin"]


def test_token_is_in_private_files_only(tmp_path: Path) -> None:
    config = LabConfig(workspace=tmp_path, state=tmp_path / "state", private=tmp_path / "private", port=0, token="hush")
    config.write()
    holders = [path for path in tmp_path.rglob("*") if path.is_file() and "hush" in path.read_text()]
    assert holders
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in holders)
    assert "hush" not in repr(config)
    assert "hush" not in "".join(config.environ().values())


def test_configuration_is_closed_by_default(tmp_path: Path) -> None:
    config = LabConfig(workspace=tmp_path, state=tmp_path, private=tmp_path, port=0, token="t")
    server = config.server()
    assert server["ServerApp"]["ip"] == "127.0.0.1"
    assert server["ServerApp"]["disable_check_xsrf"] is False
    assert server["KernelManager"]["transport"] == "ipc"
    assert config.lab()["LabApp"]["news_url"] is None
    assert "http" not in json.dumps([server, config.lab()])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--batch", "/no/such/run"], 1, "/no/such/run does not exist"),
        (["--port", "70000"], 2, "Port 70000"),
        (["--port", "x"], 2, "invalid int value"),
    ],
)
def test_bad_input_is_one_clear_error(
    workspace: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    assert main(["lab", *words]) == code
    message = capsys.readouterr().err
    assert said in message
    assert "Traceback" not in message
    assert not workspace.exists()


def test_unknown_notebook_is_refused_before_the_server_starts(
    workspace: Path, sample_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lab", "--batch", str(sample_run / "batch"), "--notebook", "none"]) == 2
    assert "otsus_method.ipynb" in capsys.readouterr().err


def test_directory_of_loose_files_is_no_session_s_run(
    workspace: Path, sample_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    series = next((sample_run / "batch").iterdir()) / "get-input-data"
    assert main(["lab", "--batch", str(series)]) == 1
    assert f"Batch.open({str(series)!r})" in capsys.readouterr().err
    assert not workspace.exists()


def test_workspace_that_cannot_be_written_is_named(
    monkeypatch: pytest.MonkeyPatch, sample_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KAAPANA_NB_WORKSPACE", "/proc/workspace")
    assert main(["lab", "--batch", str(sample_run)]) == 2
    assert "KAAPANA_NB_WORKSPACE" in capsys.readouterr().err
