"""Operator of extract-study-id, written by kaapana-nb."""

from datetime import timedelta

from kaapana.operators.KaapanaBaseOperator import (
    KaapanaBaseOperator,
    default_platform_abbr,
    default_platform_version,
    default_registry,
)


class ExtractStudyIdOperator(KaapanaBaseOperator):
    """Study and series instance UID of a series."""

    def __init__(self, dag, name="extract-study-id", execution_timeout=timedelta(hours=12), **kwargs):
        super().__init__(
            dag=dag,
            name=name,
            image=f"{default_registry}/extract-study-id:{default_platform_abbr}_{default_platform_version}__0.1.0",
            image_pull_secrets=["registry-secret"],
            execution_timeout=execution_timeout,
            ram_mem_mb=800,
            ram_mem_mb_lmt=1100,
            **kwargs,
        )
