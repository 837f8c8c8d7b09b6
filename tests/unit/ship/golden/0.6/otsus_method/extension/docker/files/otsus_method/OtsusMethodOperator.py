"""Operator of otsus-method, written by kaapana-nb."""

from datetime import timedelta

from kaapana.blueprints.kaapana_global_variables import DEFAULT_REGISTRY, KAAPANA_BUILD_VERSION
from kaapana.operators.KaapanaBaseOperator import KaapanaBaseOperator

# The DAG installer finds images by their text and knows this name, not KAAPANA_BUILD_VERSION.
default_version_identifier = KAAPANA_BUILD_VERSION


class OtsusMethodOperator(KaapanaBaseOperator):
    """Foreground mask by Otsu's threshold."""

    def __init__(self, dag, name="otsus-method", execution_timeout=timedelta(hours=12), **kwargs):
        super().__init__(
            dag=dag,
            name=name,
            image=f"{DEFAULT_REGISTRY}/otsus-method:{default_version_identifier}",
            image_pull_secrets=["registry-secret"],
            execution_timeout=execution_timeout,
            ram_mem_mb=1500,
            ram_mem_mb_lmt=2500,
            **kwargs,
        )
