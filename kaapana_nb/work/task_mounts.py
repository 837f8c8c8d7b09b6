"""The Task API's mounts, ``<input>/<item>/…`` and ``<output>/<item>/…``, as a workflow run."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kaapana_nb.contract.context import DEFAULT_INPUT
from kaapana_nb.contract.names import directory_name
from kaapana_nb.errors import ContractError


@contextlib.contextmanager
def run_of_mounts(input_dir: Path, output_dir: Path, output_name: str) -> Iterator[Path]:
    """A temporary run directory whose elements are links into the mounts; results land in the output mount.

    Each item's results go to ``<output>/<item>/``; the executed notebook, the report and results of the whole batch
    to ``<output>/<output_name>/``.

    Raises
    ------
    ContractError
        When the mounts are not there, or an item's directory is no plain name.
    """
    if not input_dir.is_dir() or not output_dir.is_dir():
        missing = input_dir if not input_dir.is_dir() else output_dir
        raise ContractError(
            f"The mount {missing} is not there; a directory was expected.",
            "Mount the input and the output that processing-container.json names.",
        )
    with tempfile.TemporaryDirectory(prefix="knb-task-", ignore_cleanup_errors=True) as name:
        run = Path(name)
        (run / "batch").mkdir()
        for item in sorted(path for path in input_dir.iterdir() if path.is_dir() and not path.name.startswith(".")):
            element = run / "batch" / directory_name(item.name, "An item's directory")
            element.mkdir()
            (element / DEFAULT_INPUT).symlink_to(item)
            target = output_dir / item.name
            target.mkdir(exist_ok=True)
            (element / output_name).symlink_to(target)
        (output_dir / output_name).mkdir(exist_ok=True)
        (run / output_name).symlink_to(output_dir / output_name)
        yield run
