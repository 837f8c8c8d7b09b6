"""A real Airflow 2.11 in an environment of its own, made once from a lock, and used as a program."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kaapana_nb.cli.bootstrap import find_uv

HERE = Path(__file__).resolve().parent
LOCK = HERE / "airflow.lock"
REGISTRY = "registry.example.org/kaapana"
BUILD_VERSION = "0.6.0"
SETUP_TIMEOUT_S = 180


class NoAirflowError(Exception):
    """Airflow cannot be had here; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Airflow:
    """An environment with Airflow, and a home for what it writes."""

    python: Path
    home: Path

    def read_dags(self, directory: Path, generation: str) -> dict[str, Any]:
        """What Airflow makes of the DAG files in `directory` on a platform of that generation."""
        environ = {
            "PATH": os.defpath,
            "LC_ALL": "C.UTF-8",
            "HOME": str(self.home),
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(directory),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
            "PYTHONPATH": str(HERE / "kaapana_signatures"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "KAAPANA_GENERATION": generation,
            "DEFAULT_REGISTRY": REGISTRY,
            "KAAPANA_BUILD_VERSION": BUILD_VERSION,
            "PLATFORM_ABBR": "kp",
            "PLATFORM_VERSION": "0.1.3",
        }
        command = [str(self.python), str(HERE / "read_dags.py"), str(directory)]
        result = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=120)
        assert result.returncode == 0, result.stderr[-4000:]
        found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
        return found


def ensure_airflow(directory: Path) -> Path:
    """The Python of the environment in `directory`, made anew when the lock or this Python has changed.

    Raises
    ------
    NoAirflowError
        When it cannot be made.
    """
    python, stamp = directory / "bin" / "python", directory / "kaapana-nb.stamp"
    wanted = hashlib.sha256(LOCK.read_bytes() + sys.version.encode()).hexdigest()
    directory.parent.mkdir(parents=True, exist_ok=True)
    with (directory.parent / f"{directory.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.is_file() and stamp.read_text() == wanted:
            return python
        uv = find_uv()
        if uv is None:
            raise NoAirflowError("there is no uv to make its environment with")
        shutil.rmtree(directory, ignore_errors=True)
        _run([uv, "venv", "-q", "--no-project", "--python", sys.executable, str(directory)])
        _run([uv, "pip", "sync", "-q", "--require-hashes", "--python", str(python), str(LOCK)])
        stamp.write_text(wanted)
    return python


def _run(command: list[str]) -> None:
    environ = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    try:
        result = subprocess.run(
            command, env=environ, capture_output=True, text=True, check=False, timeout=SETUP_TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        raise NoAirflowError(f"its environment was not made in {SETUP_TIMEOUT_S} s") from error
    if result.returncode != 0:
        raise NoAirflowError(f"its environment could not be made: {result.stderr.strip()[-500:]}")
