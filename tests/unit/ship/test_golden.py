"""What an export writes, to the byte. ``KAAPANA_NB_GOLDEN=write`` writes it anew: read the diff before committing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kaapana_nb.contract.profiles import PROFILES, profile
from kaapana_nb.ship.export import program_of, render
from kaapana_nb.work.notebook import NotebookSpec

GOLDEN = Path(__file__).with_name("golden")
NOTEBOOKS = Path(__file__).parents[3] / "notebooks"
CASES = [(name, stem) for name in sorted(PROFILES) for stem in ("extract_study_id", "otsus_method", "pool_jsons")]


@pytest.mark.parametrize(("name", "stem"), CASES)
def test_rendering_is_as_it_was_looked_at(name: str, stem: str) -> None:
    spec = NotebookSpec.read(NOTEBOOKS / f"{stem}.ipynb")
    files = render(
        spec,
        profile(name),
        program=program_of(spec),
        requirements="pydicom==3.0.0\n",
        wheel=b"a wheel",
        modules={"mine.py": b"x = 1\n"},
    ).files
    root = GOLDEN / name / stem
    # The wheel's name changes with our version, and the installer chart has tests of its own.
    shown = {
        path: data for path, data in files.items() if not path.endswith(".whl") and "/dag-installer-chart/" not in path
    }
    if os.environ.get("KAAPANA_NB_GOLDEN") == "write":
        for path, data in shown.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
    golden = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert sorted(shown) == sorted(golden)
    for path, data in shown.items():
        assert data.decode() == golden[path].decode(), path


PAGE = Path(__file__).parents[3] / "docs" / "export-otsus-method.md"
LANGUAGES = {".py": "python", ".json": "json", ".yaml": "yaml", ".ipynb": "json"}


def test_the_documentation_shows_the_same_files() -> None:
    """docs/export-otsus-method.md is written from what is rendered; ``KAAPANA_NB_GOLDEN=write`` writes it."""
    root = GOLDEN / "0.6" / "otsus_method"
    lines = [
        "# The export of `notebooks/otsus_method.ipynb` for Kaapana 0.6, file by file",
        "",
        "Written from what `kaapana-nb export` renders, with a short requirements file and one module beside the",
        "notebook; do not edit it. What each file is for says [export.md](export.md).",
    ]
    for path in sorted(root.rglob("*")):
        if path.is_file():
            language = LANGUAGES.get(path.suffix, "dockerfile" if path.name == "Dockerfile" else "text")
            lines += ["", f"## `{path.relative_to(root)}`", "", f"~~~{language}", path.read_text().rstrip(), "~~~"]
    text = "\n".join(lines) + "\n"
    if os.environ.get("KAAPANA_NB_GOLDEN") == "write":
        PAGE.write_text(text)
    assert PAGE.read_text() == text
