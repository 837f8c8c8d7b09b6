"""Fixtures that tests of every kind use."""

from __future__ import annotations

from pathlib import Path

import pytest

from kaapana_nb.emulator.sample import ensure_sample
from kaapana_nb.settings import Settings


@pytest.fixture(scope="session")
def sample_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run directory of a fresh sample batch, shared by all tests: copy it before you change it."""
    home = tmp_path_factory.mktemp("sample-home")
    return ensure_sample(Settings(home=home, workspace=home / "workspace", jobs=1), log=lambda _: None)
