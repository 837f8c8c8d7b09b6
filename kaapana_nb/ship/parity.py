"""The parity proof as a part of the export: what was compared, on what, with what result. It names no patient."""

from __future__ import annotations

import hashlib
import json
import platform
from pathlib import Path
from typing import Any

from kaapana_nb import __version__
from kaapana_nb.contract.profiles import profile
from kaapana_nb.data.batch import Batch
from kaapana_nb.files import write_atomic
from kaapana_nb.ship.build import BuiltImage
from kaapana_nb.ship.chart_files import chart_files
from kaapana_nb.ship.compare import BATCH_LEVEL, ParityReport
from kaapana_nb.ship.record import RECORD_FILE
from kaapana_nb.ship.verify import Exported, limit_mib
from kaapana_nb.work.notebook import NotebookSpec

PARITY_FILE = "parity.json"


def parity_proof(
    exported: Exported, image: BuiltImage, batch: Batch, report: ParityReport, *, runner: str
) -> dict[str, Any]:
    """The proof as plain values.

    Series are numbered instead of named, and the batch is known by a hash of its files' contents: whoever holds the
    same batch can tell that it is the same, nobody can tell anything else.
    """
    numbers = {element.name: f"series {number}" for number, element in enumerate(batch, start=1)}
    rows = [
        {
            "element": row.element if row.element == BATCH_LEVEL else numbers.get(row.element, "other"),
            "output": row.output.replace(row.element, "<series>"),
            "equal": row.equal,
        }
        for row in report.elements
    ]
    limit = limit_mib(NotebookSpec.read(exported.program).algorithm)
    return {
        "equal": report.equal,
        "outputs": len(rows),
        "series": len(batch),
        "batch": fingerprint(batch),
        "image": image.digest,
        "program": _sha256(exported.program),
        "requirements": _sha256(exported.program.with_name("requirements.txt")),
        "rehearsal": {
            "runner": runner,
            "memory_mib": limit,
            "user": 1000,
            "read_only_root": True,
            "network": False,
        }
        if runner != "process"
        else {"runner": runner, "isolated": False},
        "versions": {"kaapana_nb": __version__, "python": platform.python_version()},
        "elements": rows,
    }


def fingerprint(batch: Batch) -> str:
    """A hash of the contents of the batch's input, independent of names and order."""
    digests = sorted(_sha256(path) for element in batch for path in element.files())
    return "sha256:" + hashlib.sha256("\n".join(digests).encode()).hexdigest()


def write_parity(directory: Path, exported: Exported, proof: dict[str, Any]) -> Path:
    """Write ``parity.json`` into an export and show it in the chart's README; the next export begins without it."""
    record = json.loads((directory / RECORD_FILE).read_bytes())
    spec = NotebookSpec.read(exported.program)
    readme = f"{exported.name}-workflow/README.md"
    files = {
        PARITY_FILE: (json.dumps(proof, indent=1, sort_keys=True) + "\n").encode(),
        f"extension/{readme}": chart_files(spec, profile(exported.profile), parity=proof)[readme],
    }
    for name, data in files.items():
        write_atomic(directory / name, data)
        record["files"][name] = hashlib.sha256(data).hexdigest()
    write_atomic(directory / RECORD_FILE, (json.dumps(record, indent=1, sort_keys=True) + "\n").encode())
    return directory / PARITY_FILE


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
