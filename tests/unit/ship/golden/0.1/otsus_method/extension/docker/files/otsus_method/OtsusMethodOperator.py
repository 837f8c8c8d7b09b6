"""Operator of otsus-method, written by kaapana-nb."""

from datetime import timedelta

from kaapana.operators.KaapanaBaseOperator import (
    KaapanaBaseOperator,
    default_platform_abbr,
    default_platform_version,
    default_registry,
)


class OtsusMethodOperator(KaapanaBaseOperator):
    """Foreground mask by Otsu's threshold."""

    def __init__(self, dag, name="otsus-method", execution_timeout=timedelta(hours=12), **kwargs):
        super().__init__(
            dag=dag,
            name=name,
            image=f"{default_registry}/otsus-method:{default_platform_abbr}_{default_platform_version}__0.1.0",
            image_pull_secrets=["registry-secret"],
            execution_timeout=execution_timeout,
            ram_mem_mb=1500,
            ram_mem_mb_lmt=2500,
            **kwargs,
        )
