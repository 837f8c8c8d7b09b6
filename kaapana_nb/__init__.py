"""kaapana-nb: a notebook becomes a workflow operator of a Kaapana platform.

The public names are resolved on first use, so that ``import kaapana_nb`` loads no
SimpleITK, papermill or widget library: a processing container starts fast and
needs few packages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_EXPORTS = {
    "Algorithm": "kaapana_nb.work.algorithm",
    "Batch": "kaapana_nb.data.batch",
    "BatchElement": "kaapana_nb.data.batch",
    "KaapanaNbError": "kaapana_nb.errors",
    "RunReport": "kaapana_nb.work.report",
    "SeriesVolume": "kaapana_nb.data.volume",
    "algorithm": "kaapana_nb.work.algorithm",
    "execute_notebook": "kaapana_nb.work.execute",
    "register_loader": "kaapana_nb.data.loaders",
    "register_writer": "kaapana_nb.data.writers",
    "run": "kaapana_nb.work.run",
}

__all__ = [
    "Algorithm",
    "Batch",
    "BatchElement",
    "KaapanaNbError",
    "RunReport",
    "SeriesVolume",
    "__version__",
    "algorithm",
    "execute_notebook",
    "register_loader",
    "register_writer",
    "run",
]

if TYPE_CHECKING:
    from kaapana_nb.data.batch import Batch, BatchElement
    from kaapana_nb.data.loaders import register_loader
    from kaapana_nb.data.volume import SeriesVolume
    from kaapana_nb.data.writers import register_writer
    from kaapana_nb.errors import KaapanaNbError
    from kaapana_nb.work.algorithm import Algorithm, algorithm
    from kaapana_nb.work.execute import execute_notebook
    from kaapana_nb.work.report import RunReport
    from kaapana_nb.work.run import run


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        import importlib

        value = getattr(importlib.import_module(_EXPORTS[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
