"""Operator of pool-jsons, written by kaapana-nb."""

from datetime import timedelta

from kaapana.blueprints.kaapana_global_variables import DEFAULT_REGISTRY, KAAPANA_BUILD_VERSION
from kaapana.operators.KaapanaBaseOperator import KaapanaBaseOperator

# The DAG installer finds images by their text and knows this name, not KAAPANA_BUILD_VERSION.
default_version_identifier = KAAPANA_BUILD_VERSION


class PoolJsonsOperator(KaapanaBaseOperator):
    """The JSON files of all series in one."""

    def __init__(self, dag, name="pool-jsons", execution_timeout=timedelta(hours=12), **kwargs):
        super().__init__(
            dag=dag,
            name=name,
            image=f"{DEFAULT_REGISTRY}/pool-jsons:{default_version_identifier}",
            image_pull_secrets=["registry-secret"],
            execution_timeout=execution_timeout,
            ram_mem_mb=800,
            ram_mem_mb_lmt=1100,
            **kwargs,
        )
