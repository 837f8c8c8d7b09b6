"""JupyterLab as a child that ends with its parent: ``python -m kaapana_nb.devserver.launch PARENT_PID``."""

from __future__ import annotations

import ctypes
import os
import runpy
import shutil
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # Linux prctl(2): the signal this process gets when its parent dies


def main() -> None:
    parent = int(sys.argv.pop())
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it died before the call above
        raise SystemExit(1)
    try:
        runpy.run_module("jupyterlab", run_name="__main__", alter_sys=True)
    finally:
        if os.getppid() != parent:  # nobody else is left to remove what holds the token
            shutil.rmtree(Path(os.environ["JUPYTER_RUNTIME_DIR"]).parent, ignore_errors=True)


if __name__ == "__main__":
    main()
