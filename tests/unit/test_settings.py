"""Settings: defaults, environment variables, and a wrong number of jobs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kaapana_nb import settings as module
from kaapana_nb.errors import UsageError
from kaapana_nb.settings import Settings


def test_defaults_follow_the_home_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "DEV_DATA_DIR", tmp_path / "not-mounted")
    settings = Settings.from_environ({"HOME": "/home/ada"})
    assert settings.home == Path("/home/ada/.local/share/kaapana-nb")
    assert settings.workspace == settings.home / "workspace"
    assert settings.jobs == len(os.sched_getaffinity(0))


def test_variables_win(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "DEV_DATA_DIR", tmp_path)
    environ = {"HOME": "/home/ada", "XDG_DATA_HOME": "/data", "KAAPANA_NB_JOBS": "3"}
    assert Settings.from_environ(environ) == Settings(home=Path("/data/kaapana-nb"), workspace=tmp_path, jobs=3)
    environ |= {"KAAPANA_NB_HOME": "/own", "KAAPANA_NB_WORKSPACE": "/work"}
    assert Settings.from_environ(environ) == Settings(home=Path("/own"), workspace=Path("/work"), jobs=3)


def test_relative_home_becomes_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert Settings.from_environ({"HOME": "/home/ada", "KAAPANA_NB_HOME": "here"}).home == tmp_path / "here"


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "²", " 2"])
def test_wrong_number_of_jobs_is_quoted(text: str) -> None:
    with pytest.raises(UsageError, match="KAAPANA_NB_JOBS") as caught:
        Settings.from_environ({"HOME": "/home/ada", "KAAPANA_NB_JOBS": text})
    assert repr(text) in caught.value.problem


def test_everything_lies_below_home() -> None:
    settings = Settings(home=Path("/own"), workspace=Path("/work"), jobs=1)
    places = (
        settings.sample_run, settings.images_dir, settings.wheels_dir, settings.registry_dir, settings.containers_dir,
        settings.bin_dir,
    )  # fmt: skip
    assert all(place.is_relative_to(settings.home) and place != settings.home for place in places)
    assert len(set(places)) == len(places)
