"""requirements.lock: every file by its hash, no registry's address, and what pyproject.toml asks for."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCK = (ROOT / "requirements.lock").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def locked(text: str) -> dict[str, list[tuple[Requirement, int]]]:
    """Name -> its pinned requirements, each with its number of hashes."""
    entries: dict[str, list[tuple[Requirement, int]]] = {}
    for block in re.split(r"\n(?=\S)", text.strip()):
        head, *rest = block.replace("\\\n", "\n").splitlines()
        requirement = Requirement(head.strip())
        hashes = sum(bool(re.fullmatch(r"\s+--hash=sha256:[0-9a-f]{64}\s*", line)) for line in rest)
        assert hashes == len(rest), f"{head} has lines that are no hash"
        entries.setdefault(canonicalize_name(requirement.name), []).append((requirement, hashes))
    return entries


def all_requirements() -> list[Requirement]:
    project = PROJECT["project"]
    extras = [text for texts in project["optional-dependencies"].values() for text in texts]
    texts = [*project["dependencies"], *extras, *PROJECT["build-system"]["requires"]]
    return [item for item in map(Requirement, texts) if item.name != project["name"]]


def test_every_entry_is_pinned_and_hashed() -> None:
    for name, entries in locked(LOCK).items():
        for requirement, hashes in entries:
            assert re.fullmatch(r"==[^*,]+", str(requirement.specifier)), name
            assert hashes >= 1, name


def test_lock_names_no_address() -> None:
    assert re.findall(r"https?:|file:|--(?:extra-)?index|--find-links|--trusted| @ ", LOCK) == []


@pytest.mark.parametrize("requirement", all_requirements(), ids=lambda item: item.name)
def test_lock_satisfies_pyproject(requirement: Requirement) -> None:
    entries = locked(LOCK)[canonicalize_name(requirement.name)]
    assert all(requirement.specifier.contains(str(item.specifier).removeprefix("==")) for item, _ in entries)


def test_an_entry_without_hash_is_seen() -> None:
    with_address = "left==1.0 \\\n    --hash=sha256:" + "0" * 64 + "\nright==2.0\n"
    assert {name: entries[0][1] for name, entries in locked(with_address).items()} == {"left": 1, "right": 0}
