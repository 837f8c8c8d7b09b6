"""The configuration of one JupyterLab session, rendered as plain data and written to its private directory.

What it holds to: one address on the loopback interface, a token, XSRF protection on, nothing
fetched from outside (no news, no update check, no extension catalogue), kernels over Unix
sockets, kernels that nobody uses ended, and terminals that find the programs of this environment.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kaapana_nb.files import write_atomic

HOST = "127.0.0.1"
IDLE_KERNEL_S = 4 * 3600
"""A kernel idle for this long, with no browser connected to it, is ended: its memory is someone else's."""

# JupyterLab's own settings: `news_url` alone does not stop the question whether to fetch news.
OVERRIDES: dict[str, Any] = {
    "@jupyterlab/apputils-extension:notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
        "doNotDisturbMode": True,
    },
}

# The user's own file may set PATH anew.
_BASHRC = f"""\
if [ -r ~/.bashrc ]; then . ~/.bashrc; fi
PATH={shlex.quote(str(Path(sys.prefix, "bin")))}:$PATH
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabConfig:
    """What one session is configured with.

    Attributes
    ----------
    workspace
        Root directory that JupyterLab shows.
    state
        What outlives the session: the user's JupyterLab settings and open tabs, trusted notebooks.
    private
        The session's own directory; its path is short, since Unix sockets of kernels lie in it.
    port
        Port on 127.0.0.1; 0 lets the system choose.
    token
        What a browser must show; in no process list, since it is passed in a file of mode 0600.
    """

    workspace: Path
    state: Path
    private: Path
    port: int
    token: str = field(repr=False)

    @property
    def runtime_dir(self) -> Path:
        return self.private / "run"

    @property
    def config_dir(self) -> Path:
        return self.private / "config"

    @property
    def bashrc(self) -> Path:
        return self.config_dir / "bashrc"

    def server(self) -> dict[str, Any]:
        """``jupyter_server_config.json``."""
        return {
            "ServerApp": {
                "ip": HOST,
                "port": self.port,
                "port_retries": 0,
                "open_browser": False,
                "allow_root": True,  # a container's session; the port is on the loopback interface only
                "allow_remote_access": False,
                "root_dir": str(self.workspace),
                "terminals_enabled": True,
                "terminado_settings": {"shell_command": terminal_shell(os.environ, self.bashrc)},
                "disable_check_xsrf": False,
                "log_level": "WARN",
            },
            "IdentityProvider": {"token": self.token},
            "KernelManager": {"transport": "ipc"},
            "MappingKernelManager": {
                "cull_idle_timeout": IDLE_KERNEL_S,
                "cull_interval": 300,
                "cull_connected": False,
            },
        }

    def lab(self) -> dict[str, Any]:
        """``jupyter_lab_config.json``."""
        return {
            "LabApp": {
                "app_settings_dir": str(self.config_dir / "settings"),
                "user_settings_dir": str(self.state / "settings"),
                "workspaces_dir": str(self.state / "workspaces"),
                "news_url": None,
                "check_for_updates_class": "jupyterlab.handlers.announcements.NeverCheckForUpdate",
                "extension_manager": "readonly",
            }
        }

    def environ(self) -> dict[str, str]:
        """Variables that point Jupyter at these files and at nothing of the user's."""
        return {
            "JUPYTER_CONFIG_DIR": str(self.config_dir),
            "JUPYTER_RUNTIME_DIR": str(self.runtime_dir),
            "JUPYTER_DATA_DIR": str(self.state / "data"),
        }

    def write(self) -> None:
        """Write the files; the private directory must exist and be the user's alone."""
        for directory in (self.runtime_dir, self.state / "settings", self.state / "workspaces", self.state / "data"):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomic(self.bashrc, _BASHRC.encode(), mode=0o600)
        _write_json(self.config_dir / "jupyter_server_config.json", self.server())
        _write_json(self.config_dir / "jupyter_lab_config.json", self.lab())
        _write_json(self.config_dir / "settings" / "overrides.json", OVERRIDES)


def terminal_shell(environ: Mapping[str, str], bashrc: Path) -> list[str]:
    """The command of a terminal: the user's shell, else bash, else sh.

    No login shell, which is what Jupyter starts: Debian's ``/etc/profile`` forgets the PATH that it was given.
    """
    path = environ.get("PATH", os.defpath)
    names = (environ.get("SHELL", ""), "bash", "sh")
    shell = next((found for name in names if (found := shutil.which(name, path=path))), "/bin/sh")
    return [shell, "--rcfile", str(bashrc)] if Path(shell).name == "bash" else [shell]


def _write_json(path: Path, value: dict[str, Any]) -> None:
    write_atomic(path, json.dumps(value, indent=1).encode(), mode=0o600)
