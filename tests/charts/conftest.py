"""Both majors of Helm."""

from __future__ import annotations

import pytest

from kaapana_nb.clients.helm import PROGRAMS, Helm
from kaapana_nb.errors import PlatformError
from kaapana_nb.settings import Settings


@pytest.fixture(scope="session", params=PROGRAMS)
def helm(request: pytest.FixtureRequest) -> Helm:
    """Helm 3, then Helm 4."""
    try:
        return Helm.find(Settings.from_environ(), request.param)
    except PlatformError as error:
        pytest.skip(f"{error.problem} {error.remedy}")
