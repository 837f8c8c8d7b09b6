"""doctor: what each check finds, and the exit code that follows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from kaapana_nb.cli import doctor
from kaapana_nb.cli.doctor import Finding, Severity
from kaapana_nb.cli.main import main
from kaapana_nb.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", workspace=tmp_path / "workspace", jobs=1)


def report(monkeypatch: pytest.MonkeyPatch, *findings: Finding) -> None:
    monkeypatch.setattr(doctor, "examine", lambda settings: iter(findings))


GOOD = Finding(name="good", severity=Severity.OK, message="there")
WORSE = Finding(name="worse", severity=Severity.WARNING, message="missing", remedy="get it")
BAD = Finding(name="bad", severity=Severity.ERROR, message="broken", remedy="mend it")


def test_warnings_let_the_main_job_run_and_errors_do_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report(monkeypatch, GOOD, WORSE)
    assert main(["doctor"]) == 0
    report(monkeypatch, GOOD, BAD)
    assert main(["doctor"]) == 1
    printed = capsys.readouterr().out
    assert "remedy: get it" in printed
    assert "remedy: mend it" in printed


def test_json_has_the_documented_keys(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    report(monkeypatch, WORSE)
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "ok": True,
        "findings": [{"name": "worse", "severity": "warning", "message": "missing", "remedy": "get it"}],
    }


def test_this_machine_is_examined_to_the_end() -> None:
    with tempfile.TemporaryDirectory(
        prefix="knb-", ignore_cleanup_errors=True
    ) as home:  # podman waits 20 s for sockets with a long path
        findings = list(doctor.examine(Settings(home=Path(home), workspace=Path(home, "workspace"), jobs=1)))
    assert len({finding.name for finding in findings}) == len(findings)
    assert {"python", "environment", "containers", "helm", "sample batch", "base image", "disk"} <= {
        finding.name for finding in findings
    }
    assert all(finding.remedy for finding in findings if finding.severity in {Severity.WARNING, Severity.ERROR})


def test_python(settings: Settings) -> None:
    assert doctor.check_python((3, 12)).severity is Severity.OK
    assert doctor.check_python((3, 13)).severity is Severity.ERROR


def test_lock_out_of_step_is_named(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    assert doctor.check_lock(lock).severity is Severity.NOTE
    lock.write_text(
        "no-such-package==1.0 \\\n    --hash=sha256:00\npytest==0.1\nother==9 ; python_full_version < '3'\n"
    )
    finding = doctor.check_lock(lock)
    assert finding.severity is Severity.WARNING
    assert "no-such-package missing (locked: 1.0), pytest" in finding.message
    assert "other" not in finding.message


def test_missing_program_tells_what_goes_without_it() -> None:
    finding = doctor.check_program("podman", "/no/such/podman", "containers are run by the process runner")
    assert (finding.severity, finding.message) == (
        Severity.WARNING,
        "missing: containers are run by the process runner",
    )
    assert doctor.check_program("chromium", "/no/such/chromium", "x").severity is Severity.NOTE
    assert doctor.check_program("coreutils", "ls", "x").severity is Severity.OK


def test_sample_batch_present_absent_and_broken(settings: Settings, sample_run: Path) -> None:
    assert doctor.check_sample(settings).severity is Severity.NOTE
    settings.sample_run.mkdir(parents=True)
    broken = doctor.check_sample(settings)
    assert (broken.severity, bool(broken.remedy)) == (Severity.WARNING, True)
    home_of_sample = Settings(home=sample_run.parents[1], workspace=settings.workspace, jobs=1)
    assert doctor.check_sample(home_of_sample).message == f"{len(list((sample_run / 'batch').iterdir()))} series"


def test_helm_present_and_broken(tmp_path: Path) -> None:
    program = tmp_path / "helm"
    assert doctor.check_helm(program).severity is Severity.NOTE
    program.write_text("#!/bin/sh\necho v3.19.0\n")
    program.chmod(0o755)
    assert doctor.check_helm(program).message == "v3.19.0"
    program.write_text("#!/bin/sh\nexit 1\n")
    assert doctor.check_helm(program).severity is Severity.NOTE


def test_directory_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    assert doctor.check_writable("home", tmp_path / "new" / "deep", "X").severity is Severity.OK
    assert not (tmp_path / "new").exists()
    # Nothing can be made in /proc, not even by root.
    finding = doctor.check_writable("home", Path("/proc/self/new"), "KAAPANA_NB_HOME")
    assert finding.severity is Severity.ERROR
    assert "KAAPANA_NB_HOME" in finding.remedy


def test_disk_and_limits(tmp_path: Path) -> None:
    assert doctor.check_disk(tmp_path, minimum_gib=0).severity is Severity.OK
    assert doctor.check_disk(tmp_path, minimum_gib=1e9).severity is Severity.WARNING
    few = tmp_path / "few"
    few.write_text("16\n")
    assert doctor.check_inotify(few).severity is Severity.WARNING
    few.write_text("8192\n")
    assert doctor.check_inotify(few).severity is Severity.OK
    assert doctor.check_inotify(tmp_path / "none").severity is Severity.NOTE


def test_few_open_files_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.resource, "getrlimit", lambda _: (256, 4096))
    finding = doctor.check_open_files()
    assert (finding.severity, finding.remedy) == (Severity.WARNING, "ulimit -n 1024")
    monkeypatch.setattr(doctor.resource, "getrlimit", lambda _: (doctor.resource.RLIM_INFINITY, -1))
    assert doctor.check_open_files().severity is Severity.OK


READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@"'


def _doctor(place: Path, kind: str) -> list[str]:
    """The command that examines this machine with `place` as a directory in which no home can be made."""
    command = [sys.executable, "-m", "kaapana_nb", "doctor", "--json"]
    root = os.geteuid() == 0  # may write anywhere, unless the place is mounted read-only or the capability is gone
    if kind == "a file":
        place.write_text("")
        return command
    place.mkdir()
    if kind == "not to be entered":
        place.chmod(0o000)
        drop = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
        return [*drop, *command] if root else command
    if not root:
        place.chmod(0o555)
        return command
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets root make no mount namespace")
    return ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh", str(place), *command]


@pytest.mark.parametrize("kind", ["a file", "read-only", "not to be entered"])
def test_home_that_cannot_be_made_is_a_finding(tmp_path: Path, kind: str) -> None:
    command = _doctor(tmp_path / "place", kind)
    environ = {**os.environ, "KAAPANA_NB_HOME": str(tmp_path / "place" / "h"), "KAAPANA_NB_WORKSPACE": str(tmp_path)}
    result = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=120)
    (tmp_path / "place").chmod(0o700)
    assert (result.returncode, result.stderr) == (1, "")
    findings = {finding["name"]: finding for finding in json.loads(result.stdout)["findings"]}
    assert [name for name, finding in findings.items() if finding["severity"] == "error"] == ["home"]
    assert "cannot be written" in findings["home"]["message"]
    assert "KAAPANA_NB_HOME" in findings["home"]["remedy"]
