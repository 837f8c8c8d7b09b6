"""environment.yml, the pre-commit hooks and the Makefile say the same as pyproject.toml and one another."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
SESSION_EXTRAS = ("execute", "lab", "ship")
CONDA_NAMES = {"isal": "python-isal", "installer": "python-installer", "matplotlib": "matplotlib-base"}


def wanted_packages(project: dict[str, Any]) -> dict[str, str]:
    """Conda name -> version range of everything that a dev session needs."""
    extras = project["optional-dependencies"]
    texts = [*project["dependencies"], *(text for extra in SESSION_EXTRAS for text in extras[extra])]
    requirements = [Requirement(text) for text in texts]
    return {
        CONDA_NAMES.get(item.name.lower(), item.name.lower()): str(item.specifier)
        for item in requirements
        if item.name != "kaapana-nb"
    }


def conda_packages(environment: dict[str, Any]) -> dict[str, str]:
    entries = [entry.partition(" ") for entry in environment["dependencies"] if isinstance(entry, str)]
    return {name: version.replace(" ", "") for name, _, version in entries}


@pytest.fixture
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture
def environment() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "environment.yml").read_text())


def test_environment_has_the_packages_of_pyproject(project: dict[str, Any], environment: dict[str, Any]) -> None:
    found = conda_packages(environment)
    assert set(found.pop("python").split(",")) == set(project["requires-python"].split(","))
    assert found == wanted_packages(project)


def test_environment_installs_this_clone(environment: dict[str, Any]) -> None:
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip == ["-e .[lab,ship]"]


def test_hooks_run_the_commands_of_make_lint() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    makefile = (ROOT / "Makefile").read_text()
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", makefile, flags=re.MULTILINE)
    assert recipe is not None
    commands = [line.strip().removeprefix("@").replace("$(BIN)", ".venv/bin") for line in recipe[1].splitlines()]
    assert [hook["entry"] for hook in hooks] == commands


def test_no_hook_comes_from_outside() -> None:
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repository["repo"] for repository in repositories] == ["local"]
