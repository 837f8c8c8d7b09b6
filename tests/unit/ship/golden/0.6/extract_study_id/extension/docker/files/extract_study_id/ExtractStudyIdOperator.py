"""Operator of extract-study-id, written by kaapana-nb."""

from datetime import timedelta

from kaapana.blueprints.kaapana_global_variables import DEFAULT_REGISTRY, KAAPANA_BUILD_VERSION
from kaapana.operators.KaapanaBaseOperator import KaapanaBaseOperator

# The DAG installer finds images by their text and knows this name, not KAAPANA_BUILD_VERSION.
default_version_identifier = KAAPANA_BUILD_VERSION


class ExtractStudyIdOperator(KaapanaBaseOperator):
    """Study and series instance UID of a series."""

    def __init__(self, dag, name="extract-study-id", execution_timeout=timedelta(hours=12), **kwargs):
        super().__init__(
            dag=dag,
            name=name,
            image=f"{DEFAULT_REGISTRY}/extract-study-id:{default_version_identifier}",
            image_pull_secrets=["registry-secret"],
            execution_timeout=execution_timeout,
            ram_mem_mb=800,
            ram_mem_mb_lmt=1100,
            **kwargs,
        )
