"""Helm as a program: dependencies, lint, rendering and packages of charts, without a cluster and without the network.

Each call gets directories of its own for Helm's settings and cache, so nothing of the user's is read (repositories,
plugins, registry logins) and calls do not meet. Charts that depend on others by ``file://`` need no repository.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kaapana_nb.errors import PlatformError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kaapana_nb.settings import Settings

PROGRAMS = ("helm", "helm4")
"""Helm 3 and Helm 4, by the names under which the set-up puts them into ``Settings.bin_dir``."""

TIMEOUT_S = 60.0
_NOWHERE = "http://127.0.0.1:9"
_MAX_LINES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Helm:
    """One Helm program.

    Attributes
    ----------
    program
        Path of the binary.
    version
        As it says itself, for example ``v3.19.0``.
    """

    program: Path
    version: str

    @classmethod
    def find(cls, settings: Settings, name: str = PROGRAMS[0]) -> Helm:
        """The program `name` of the set-up, else the one on PATH.

        Raises
        ------
        PlatformError
            When there is none, or it does not run.
        """
        ours = settings.bin_dir / name
        found = str(ours) if os.access(ours, os.X_OK) else shutil.which(name)
        if found is None:
            raise PlatformError(
                f"There is no {name}, neither in {settings.bin_dir} nor on PATH.",
                "Run `make setup`, which brings it, or put a Helm 3 or 4 on PATH.",
            )
        program = Path(found)
        return cls(program=program, version=_call(program, "version", "--template", "{{.Version}}").strip())

    @property
    def major(self) -> int:
        """3 or 4."""
        text = self.version.removeprefix("v").partition(".")[0]
        return int(text) if text.isdigit() else 0

    def update_dependencies(self, chart: Path) -> None:
        """Put the charts that `chart` depends on into its ``charts/`` (``helm dependency update``)."""
        _call(self.program, "dependency", "update", "--skip-refresh", str(chart), about=chart)

    def lint(self, chart: Path, *, values: Sequence[Path] = (), strict: bool = True) -> str:
        """Check a chart and return what Helm says of it.

        Raises
        ------
        PlatformError
            With Helm's own lines; with `strict`, for warnings too.
        """
        return _call(self.program, "lint", *(["--strict"] if strict else []), str(chart), *_files(values), about=chart)

    def template(
        self,
        chart: Path,
        *,
        release: str = "release",
        namespace: str = "default",
        values: Sequence[Path] = (),
        sets: Mapping[str, str] | None = None,
        kubernetes: str | None = None,
    ) -> str:
        """The manifests as YAML documents, hooks included.

        Parameters
        ----------
        sets
            Single values, passed as text as the platform passes them.
        kubernetes
            Version of Kubernetes to render for, ``1.31`` for example.
        """
        options = [*_files(values)]
        for key, value in (sets or {}).items():
            options += ["--set-string", f"{key}={_escaped(value)}"]
        if kubernetes is not None:
            options += ["--kube-version", kubernetes]
        return _call(self.program, "template", release, str(chart), "--namespace", namespace, *options, about=chart)

    def package(self, chart: Path, directory: Path) -> Path:
        """Pack a chart into ``<directory>/<name>-<version>.tgz``."""
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            _call(self.program, "package", str(chart), "--destination", scratch, about=chart)
            packed = next(Path(scratch).glob("*.tgz"))
            return packed.replace(directory / packed.name)


def _files(values: Sequence[Path]) -> list[str]:
    return [part for path in values for part in ("--values", str(path))]


def _escaped(value: str) -> str:
    """A value as ``--set-string`` takes it literally."""
    return "".join(f"\\{character}" if character in "\\,{}[]" else character for character in value)


def _call(program: Path, *arguments: str, about: Path | None = None) -> str:
    what = f"helm {arguments[0]}" + (f" of {about.name}" if about else "")
    with tempfile.TemporaryDirectory(prefix="kaapana-nb-helm-") as scratch:
        environ = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LC_ALL": "C.UTF-8",
            "HOME": scratch,
            "KUBECONFIG": os.devnull,
            **{f"HELM_{kind}_HOME": f"{scratch}/{kind.lower()}" for kind in ("CACHE", "CONFIG", "DATA")},
            "HELM_PLUGINS": f"{scratch}/plugins",
            **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), _NOWHERE),
        }
        try:
            result = subprocess.run(
                [str(program), *arguments], check=False, env=environ, stdin=subprocess.DEVNULL, capture_output=True,
                text=True, errors="replace", timeout=TIMEOUT_S,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise PlatformError(
                f"{what} was not done after {TIMEOUT_S:.0f} s.", "Try again when the machine is less busy."
            ) from error
        except OSError as error:
            raise PlatformError(
                f"{program} cannot be run ({error.strerror}).", "Remove it and run `make setup`, which brings another."
            ) from error
    if result.returncode != 0:
        lines = [line for line in (result.stdout + result.stderr).splitlines() if line.strip()]
        raise PlatformError(
            f"{what} failed:\n" + "\n".join(lines[-_MAX_LINES:]), "Correct the chart where these lines point to."
        )
    return result.stdout
