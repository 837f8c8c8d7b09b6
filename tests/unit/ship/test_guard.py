"""A patient's name planted anywhere in a notebook stops the export, and is not shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nbformat
import pydicom
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from kaapana_nb.contract.profiles import profile
from kaapana_nb.data.batch import Batch
from kaapana_nb.errors import PrivacyError
from kaapana_nb.ship.context_guard import guard_context
from kaapana_nb.ship.export import export_notebook, write_extension
from kaapana_nb.ship.guard import guard

ALGORITHM = """
from kaapana_nb import Batch, BatchElement, algorithm, run

@algorithm(memory_mib=100)
def my_count(element: BatchElement) -> dict:
    return {"files": len(element.files())}

run(my_count, Batch.from_environ())
"""
PLACES = ("nowhere", "markdown", "title", "output", "file name", "requirements")


def planted(directory: Path, place: str, name: str) -> Path:
    cells = [new_code_cell(ALGORITHM)]
    if place == "markdown":
        cells.append(new_markdown_cell(f"The lesion of Mr. {name} is seen well."))
    if place == "title":
        cells.append(new_code_cell(f"import matplotlib.pyplot as plt\nplt.title('{name}, CT')"))
    if place == "output":
        cells[0].outputs = [new_output("stream", name="stdout", text=f"patient {name}")]
    if place == "file name":
        (directory / f"{name.lower()}.py").write_text("x = 1")
        cells.append(new_code_cell(f"from {name.lower()} import x"))
    if place == "requirements":
        (directory / "mine.py").write_text(f"import yaml  # pinned for {name}\n")
        cells.append(new_code_cell("import mine"))
    path = directory / "my_count.ipynb"
    path.write_text(nbformat.writes(new_notebook(cells=cells)))
    return path


@pytest.mark.parametrize("place", PLACES)
def test_a_name_stops_the_export(sample_run: Path, tmp_path: Path, place: str) -> None:
    batch = Batch.open(sample_run)
    names = {str(pydicom.dcmread(e.files()[0], stop_before_pixels=True).PatientName).split("^")[0] for e in batch}
    name = next(name for name in sorted(names) if name.isascii() and name.isidentifier() and len(name) > 4)
    path = planted(tmp_path, place, name)
    extension = export_notebook(path, profile())
    if place == "nowhere":
        guard(extension, batch=batch, allowed=frozenset(), notebook=path)
        return
    with pytest.raises(PrivacyError) as caught:
        guard(extension, batch=batch, allowed=frozenset(), notebook=path)
    assert name.lower() not in str(caught.value).lower()
    assert "--allow" in caught.value.remedy


def test_what_was_looked_at_may_leave(sample_run: Path, tmp_path: Path) -> None:
    batch = Batch.open(sample_run)
    name = str(pydicom.dcmread(batch[0].files()[0], stop_before_pixels=True).PatientName).split("^")[0]
    path = planted(tmp_path, "markdown", name)
    extension = export_notebook(path, profile())
    with pytest.raises(PrivacyError) as caught:
        guard(extension, batch=batch, allowed=frozenset(), notebook=path)
    fingerprints = frozenset(word.strip("[]") for word in caught.value.problem.split() if word.startswith("["))
    guarded = guard(extension, batch=batch, allowed=fingerprints, notebook=path)
    write_extension(replace(extension, allowed=guarded.fingerprints), tmp_path / "out")
    context = tmp_path / "out" / "processing-containers" / "my-count"
    guard_context(tmp_path / "out", context, batch=batch)
    (context / "files" / "my_count.ipynb").write_text(f"edited: seen in {name}")
    with pytest.raises(PrivacyError):
        guard_context(tmp_path / "out", context, batch=batch)
    assert len(guarded.allowed) == len(fingerprints) >= 1
    assert name not in "".join(guarded.lines())


def test_a_secret_stops_it_without_any_batch(tmp_path: Path) -> None:
    path = planted(tmp_path, "nowhere", "")
    document = nbformat.read(path, as_version=4)
    document.cells.append(new_code_cell("password = 'hunter2-kR9v7Qx3Lm'\naws = 'AKIAIOSFODNN7EXAMPLE'"))
    path.write_text(nbformat.writes(document))
    with pytest.raises(PrivacyError) as caught:
        guard(export_notebook(path, profile()), batch=None, allowed=frozenset())
    assert "AKIAIOSFODNN7EXAMPLE" not in str(caught.value)


def test_an_allowed_secret_is_allowed_at_the_build_without_the_batch(sample_run: Path, tmp_path: Path) -> None:
    batch = Batch.open(sample_run)
    path = planted(tmp_path, "nowhere", "")
    document = nbformat.read(path, as_version=4)
    document.cells.append(new_code_cell("aws = 'AKIAIOSFODNN7EXAMPLE'"))
    path.write_text(nbformat.writes(document))
    extension = export_notebook(path, profile())
    with pytest.raises(PrivacyError) as caught:
        guard(extension, batch=batch, allowed=frozenset())
    allowed = frozenset(word.strip("[]") for word in caught.value.problem.split() if word.startswith("["))
    guarded = guard(extension, batch=batch, allowed=allowed)
    write_extension(replace(extension, allowed=guarded.fingerprints), tmp_path / "out")
    context = tmp_path / "out" / "processing-containers" / "my-count"
    guard_context(tmp_path / "out", context, batch=None)
    program = context / "files" / "my_count.ipynb"
    program.write_text(program.read_text() + "\n")  # edited, so searched again: what was allowed still is
    guard_context(tmp_path / "out", context, batch=None)
    (tmp_path / "out" / "export.json").unlink()
    with pytest.raises(PrivacyError):
        guard_context(tmp_path / "out", context, batch=None)
