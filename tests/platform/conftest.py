"""Airflow 2.11, once per session."""

from __future__ import annotations

import pytest
from airflow_environment import Airflow, NoAirflowError, ensure_airflow

from kaapana_nb.settings import Settings


@pytest.fixture(scope="session")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Airflow:
    try:
        python = ensure_airflow(Settings.from_environ().home / "airflow-2.11")
    except NoAirflowError as error:
        pytest.skip(f"No Airflow 2.11: {error}")
    return Airflow(python=python, home=tmp_path_factory.mktemp("airflow-home"))
