"""One frozen `Settings`: where this machine keeps what kaapana-nb makes, and how hard it may work."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kaapana_nb.errors import UsageError

DEV_DATA_DIR = Path("/kaapanadevdata")  # mounted into dev servers by the platform


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is the same for a whole process.

    Attributes
    ----------
    home
        Directory of everything that kaapana-nb makes and may make again (images, wheels, sample batch).
        ``KAAPANA_NB_HOME``, default ``$XDG_DATA_HOME/kaapana-nb``.
    workspace
        Directory of the user's own work in a dev session. ``KAAPANA_NB_WORKSPACE``, default
        ``/kaapanadevdata`` where the platform mounts it, else ``<home>/workspace``.
    jobs
        How many batch elements run at once. ``KAAPANA_NB_JOBS``, default: the CPUs this process may use.
    """

    home: Path
    workspace: Path
    jobs: int

    @property
    def sample_run(self) -> Path:
        """Run directory of the sample batch (``<run>/batch/<series>/get-input-data``)."""
        return self.home / "sample" / "sample-run-260101000000000000"

    @property
    def images_dir(self) -> Path:
        """OCI image layouts: ``<images>/<repository>/<tag>``."""
        return self.home / "images"

    @property
    def wheels_dir(self) -> Path:
        """Downloaded wheels, by file name."""
        return self.home / "wheels"

    @property
    def registry_dir(self) -> Path:
        """Storage of the local registry."""
        return self.home / "registry"

    @property
    def containers_dir(self) -> Path:
        """Storage and settings of podman, apart from the user's own."""
        return self.home / "containers"

    @property
    def bin_dir(self) -> Path:
        """Programs that no system package brings (helm)."""
        return self.home / "bin"

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from environment variables; every variable is optional."""
        environ = os.environ if environ is None else environ
        user = Path(environ.get("HOME") or Path.home())
        data = Path(environ.get("XDG_DATA_HOME") or user / ".local" / "share")
        home = Path(environ.get("KAAPANA_NB_HOME") or data / "kaapana-nb").absolute()
        default_workspace = DEV_DATA_DIR if os.access(DEV_DATA_DIR, os.W_OK) else home / "workspace"
        workspace = Path(environ.get("KAAPANA_NB_WORKSPACE") or default_workspace).absolute()
        text = environ.get("KAAPANA_NB_JOBS") or str(len(os.sched_getaffinity(0)))
        if not text.isascii() or not text.isdigit() or int(text) < 1:
            raise UsageError(
                f"KAAPANA_NB_JOBS is {text!r}; a whole number from 1 on was expected.",
                "Unset KAAPANA_NB_JOBS or set it to the number of elements to run at once.",
            )
        return cls(home=home, workspace=workspace, jobs=int(text))
