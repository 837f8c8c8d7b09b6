from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from kaapana_nb.ship.provenance import FIXED_DATE, provenance, public_address


def git(directory: Path, *words: str) -> None:
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *identity, *words], cwd=directory, check=True, capture_output=True)


def test_a_committed_notebook_names_its_commit(tmp_path: Path) -> None:
    notebook = tmp_path / "a.ipynb"
    notebook.write_text("{}")
    created = "org.opencontainers.image.created"
    assert provenance(notebook) == {created: FIXED_DATE}
    git(tmp_path, "init")
    git(tmp_path, "remote", "add", "origin", "https://user:secret@git.example.org/team/repo.git")
    assert provenance(notebook) == {created: FIXED_DATE}
    git(tmp_path, "add", "a.ipynb")
    git(tmp_path, "commit", "-m", "m")
    labels = provenance(notebook)
    assert len(labels["org.opencontainers.image.revision"]) == 40
    assert labels["org.opencontainers.image.source"] == "https://git.example.org/team/repo.git"
    assert labels[created] != FIXED_DATE
    notebook.write_text("changed")
    assert provenance(notebook) == {created: FIXED_DATE}


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("https://git.example.org/a", "https://git.example.org/a"),
        ("https://u:p@git.example.org:8443/a?token=x#y", "https://git.example.org:8443/a"),
        ("/home/me/repo", ""),
        ("git@git.example.org:a/b", ""),
        ("file:///home/me/repo", ""),
        ("https://git.example.org:port/a", ""),
        ('https://git.example.org/a" LABEL x="y', ""),
        ("", ""),
    ],
)
def test_addresses_lose_what_is_not_public(address: str, public: str) -> None:
    assert public_address(address) == public
