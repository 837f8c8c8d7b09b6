"""A notebook's kernel without a terminal: what it or its children write past Jupyter goes to a log file.

A kernel that inherited our streams would show everything twice (as messages, and by itself), and its own complaints
at an interrupt in full.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from jupyter_client.manager import AsyncKernelManager

from kaapana_nb.work.execute import KERNEL_LOG_VARIABLE


class QuietKernelManager(AsyncKernelManager):
    """Starts the kernel with its streams on a log file."""

    async def _async_launch_kernel(self, kernel_cmd: list[str], **kw: Any) -> None:
        path = Path(os.environ.get(KERNEL_LOG_VARIABLE) or os.devnull)
        with path.open("ab") as log:
            await super()._async_launch_kernel(kernel_cmd, stdout=log, stderr=log, **kw)
