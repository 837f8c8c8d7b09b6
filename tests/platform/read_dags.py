"""Runs inside the Airflow environment: reads a directory of DAGs with Airflow's DagBag and prints what came of it."""

import json
import sys

from airflow.models import DagBag


def task(operator) -> dict:
    return {
        "image": getattr(operator, "image", None),
        "memory_mib": [getattr(operator, name, None) for name in ("ram_mem_mb", "ram_mem_mb_lmt")],
        "in_dir": getattr(operator, "operator_in_dir", None),
        "out_dir": operator.operator_out_dir,
        "sources": getattr(operator, "sources", None),
        "suffixes": getattr(operator, "suffixes", None),
        "after": sorted(operator.upstream_task_ids),
    }


bag = DagBag(sys.argv[1], include_examples=False)
dags = {
    dag_id: {
        "order": [operator.task_id for operator in dag.topological_sort()],
        "tasks": {operator.task_id: task(operator) for operator in dag.tasks},
        "ui_forms": dag.default_args.get("ui_forms"),
        "ui_visible": dag.default_args.get("ui_visible"),
        "owner": dag.owner,
    }
    for dag_id, dag in bag.dags.items()
}
print(json.dumps({"import_errors": bag.import_errors, "dags": dags}))
