"""Operator of pool-jsons, written by kaapana-nb."""

from datetime import timedelta

from kaapana.operators.KaapanaBaseOperator import (
    KaapanaBaseOperator,
    default_platform_abbr,
    default_platform_version,
    default_registry,
)


class PoolJsonsOperator(KaapanaBaseOperator):
    """The JSON files of all series in one."""

    def __init__(self, dag, name="pool-jsons", execution_timeout=timedelta(hours=12), **kwargs):
        super().__init__(
            dag=dag,
            name=name,
            image=f"{default_registry}/pool-jsons:{default_platform_abbr}_{default_platform_version}__0.1.0",
            image_pull_secrets=["registry-secret"],
            execution_timeout=execution_timeout,
            ram_mem_mb=800,
            ram_mem_mb_lmt=1100,
            **kwargs,
        )
