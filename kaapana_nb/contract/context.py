"""`RunContext`: one workflow run as an operator's container sees it, read from its environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from kaapana_nb.contract.names import directory_name
from kaapana_nb.errors import ContractError

WORKFLOW_DIR = "WORKFLOW_DIR"
BATCH_NAME = "BATCH_NAME"
OPERATOR_IN_DIR = "OPERATOR_IN_DIR"
OPERATOR_OUT_DIR = "OPERATOR_OUT_DIR"

RESERVED_VARIABLES = frozenset(
    {
        WORKFLOW_DIR, BATCH_NAME, OPERATOR_IN_DIR, OPERATOR_OUT_DIR, "BATCHES_INPUT_DIR", "RUN_ID", "DAG_ID",
        "TASK_ID", "CUDA_VISIBLE_DEVICES", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "KEYCLOAK_URL",
        "KUBE_HELM_URL", "OPENSEARCH_URL", "DICOM_WEB_FILTER_URL", "NOTIFICATION_URL", "AII_URL",
        "KAAPANA_BACKEND_URL", "MINIO_URL", "SERVICES_NAMESPACE", "ADMIN_NAMESPACE", "KAAPANA_PROJECT_USER_NAME",
        "KAAPANA_PROJECT_USER_PASSWORD", "KAAPANA_CLIENT_SECRET", "WORKSPACE", "INGRESS_PATH", "PATH", "HOME",
        "USER", "PYTHONPATH", "LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONHOME", "SHELL", "TMPDIR", "HOSTNAME", "LANG",
    }
)  # fmt: skip
"""Variables that the platform or the container sets itself: no algorithm parameter may have these names."""

DEFAULT_INPUT = "get-input-data"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """One workflow run.

    Attributes
    ----------
    run_dir
        ``"/" + WORKFLOW_DIR``: the run's directory.
    batch_name
        Directory of the batch below it.
    operator_in_dir, operator_out_dir
        Directory of the input and of the results below each batch element; ``None`` where the
        platform did not set them (an operator without input; a dev session).
    run_id, dag_id, task_id
        Names of the run, or ``None``.
    environ
        The whole environment; not shown in ``repr``, since it holds secrets.
    """

    run_dir: Path
    batch_name: str
    operator_in_dir: str | None = None
    operator_out_dir: str | None = None
    run_id: str | None = None
    dag_id: str | None = None
    task_id: str | None = None
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def batch_dir(self) -> Path:
        return self.run_dir / self.batch_name

    def form_value(self, parameter: str) -> str | None:
        """What the workflow form gave for an algorithm's parameter, or ``None``.

        The platform passes each form key in upper case. An empty value is what an empty
        text field sends and counts as given.
        """
        return self.environ.get(parameter.upper())

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] | None = None) -> RunContext:
        """Read the context from environment variables (default: this process's).

        Raises
        ------
        ContractError
            When WORKFLOW_DIR or BATCH_NAME is missing, or a directory name is none.
        """
        values = dict(os.environ if environ is None else environ)
        missing = [name for name in (WORKFLOW_DIR, BATCH_NAME) if not values.get(name)]
        if missing:
            raise ContractError(
                f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set: "
                "this process knows of no workflow run.",
                "Open a dev session with `kaapana-nb lab --batch DIR`, or name the batch: Batch.open(DIR).",
            )
        run_dir = Path("/" + values[WORKFLOW_DIR].lstrip("/"))
        if ".." in run_dir.parts or not str(run_dir).isprintable():
            raise ContractError(
                f"WORKFLOW_DIR is {values[WORKFLOW_DIR]!r}; the run's directory was expected.",
                "Set WORKFLOW_DIR to the directory that holds the batch.",
            )
        names = {
            name: directory_name(values[name], name)
            for name in (BATCH_NAME, OPERATOR_IN_DIR, OPERATOR_OUT_DIR)
            if values.get(name)
        }
        return cls(
            run_dir=run_dir,
            batch_name=names[BATCH_NAME],
            operator_in_dir=names.get(OPERATOR_IN_DIR),
            operator_out_dir=names.get(OPERATOR_OUT_DIR),
            run_id=values.get("RUN_ID") or None,
            dag_id=values.get("DAG_ID") or None,
            task_id=values.get("TASK_ID") or None,
            environ=MappingProxyType(values),
        )
