"""The DAG side of an extension: operator module, DAG module, and the Dockerfile of the image that installs them."""

from __future__ import annotations

import pprint
import re
from typing import Any

from kaapana_nb.contract.names import class_name
from kaapana_nb.contract.profiles import Profile
from kaapana_nb.ship.chain import Chain, chain_for, chain_of_unknown
from kaapana_nb.ship.forms import SINGLE_EXECUTION, workflow_form
from kaapana_nb.work.notebook import NotebookSpec

RUNNER_MIB = 500
"""Room for papermill, the kernel and the fork server beside the algorithm, in MiB."""
DEFAULT_MEMORY_MIB = 2000
"""Request of an algorithm that declares no memory."""
PARALLEL = 2
"""How many elements the operator's memory limit leaves room for."""


def module_name(name: str) -> str:
    """``otsus-method`` -> ``otsus_method``: package of the operator, stem of the DAG's file."""
    return name.replace("-", "_")


def dag_files(spec: NotebookSpec, profile: Profile) -> dict[str, bytes]:
    """Files below ``extension/docker``: path -> content."""
    name, operator = spec.name, f"{class_name(spec.name)}Operator"
    module = module_name(name)
    return {
        "Dockerfile": dag_dockerfile(spec, profile).encode(),
        f"files/dag_{module}.py": dag_module(spec, profile).encode(),
        f"files/{module}/{operator}.py": operator_module(spec, profile).encode(),
    }


def dag_dockerfile(spec: NotebookSpec, profile: Profile) -> str:
    """Dockerfile of the DAG image: the platform's installer with our two files where it looks for them."""
    module = module_name(spec.name)
    lines = [
        f"FROM {profile.installer_base}",
        f'LABEL IMAGE="dag-{spec.name}"',
        f'LABEL VERSION="{version_of(spec)}"',
        f'LABEL {profile.ignore_label}="False"',
        f"COPY files/dag_{module}.py {profile.installer_dags_dir}/dag_{module}.py",
        f"COPY files/{module} {profile.installer_dags_dir}/{module}",
    ]
    return "\n".join(lines) + "\n"


def version_of(spec: NotebookSpec) -> str:
    """Version of the extension."""
    return spec.algorithm.options.version if spec.algorithm else "0.1.0"


def operator_module(spec: NotebookSpec, profile: Profile) -> str:
    """The operator: the platform's base operator with our image and resources."""
    name = spec.name
    memory = (spec.algorithm.options.memory_mib if spec.algorithm else None) or DEFAULT_MEMORY_MIB
    literal = profile.image_literal.format(name=name, version=version_of(spec))
    description = (spec.algorithm.description if spec.algorithm else "") or f"Runs {name}."
    return f'''"""Operator of {name}, written by kaapana-nb."""

from datetime import timedelta

{profile.operator_globals}

class {class_name(name)}Operator(KaapanaBaseOperator):
    {_docstring(description)}

    def __init__(self, dag, name="{name}", execution_timeout=timedelta(hours=12), **kwargs):
        super().__init__(
            dag=dag,
            name=name,
            image={literal},
            image_pull_secrets=["registry-secret"],
            execution_timeout=execution_timeout,
            ram_mem_mb={memory + RUNNER_MIB},
            ram_mem_mb_lmt={PARALLEL * memory + RUNNER_MIB},
            **kwargs,
        )
'''


def dag_module(spec: NotebookSpec, profile: Profile) -> str:
    """The DAG: form, arguments, and the chain that fits the types."""
    chain = _chain(spec)
    module, operator = module_name(spec.name), f"{class_name(spec.name)}Operator"
    imports = [f"from {module}.{operator} import {operator}"]
    if chain.after:
        before = f"{class_name(chain.after)}Operator"
        imports.append(f"from {module_name(chain.after)}.{before} import {before}")
    platform = {profile.get_input, "LocalWorkflowCleanerOperator"}
    platform |= {"DcmConverterOperator"} if chain.convert else set()
    platform |= {"Itk2DcmSegOperator"} if chain.segmentation else set()
    platform |= {"DcmSendOperator"} if chain.segmentation or chain.send else set()
    platform |= {profile.store_operator} if chain.suffixes else set()
    imports += [f"from kaapana.operators.{item} import {item}" for item in platform]
    form = workflow_form(spec.algorithm) if spec.algorithm else {"workflow_form": _EMPTY_FORM}
    return f'''"""DAG of {spec.name}, written by kaapana-nb: {" -> ".join(chain.steps)}."""

from datetime import datetime, timedelta

from airflow.models import DAG
{chr(10).join(sorted(imports))}

ui_forms = {pprint.pformat(disarmed(form), width=100, sort_dicts=False)}

args = {{
    "ui_forms": ui_forms,
    "ui_visible": True,
    "owner": "kaapana",
    "start_date": datetime(2026, 1, 1),
    "retries": 0,
    "retry_delay": timedelta(seconds=30),
}}

dag = DAG(dag_id="{spec.name}", default_args=args, schedule_interval=None, catchup=False)

{_tasks(spec, profile, chain)}
'''


_EMPTY_FORM: dict[str, object] = {"type": "object", "properties": {"single_execution": SINGLE_EXECUTION}}


def _chain(spec: NotebookSpec) -> Chain:
    if spec.algorithm is not None:
        return chain_for(spec.algorithm)
    return chain_of_unknown(batch_level=not spec.is_script)


def _tasks(spec: NotebookSpec, profile: Profile, chain: Chain) -> str:
    lines = [f"get_input = {profile.get_input}(dag=dag)"]
    order, source = ["get_input"], "get_input"
    if chain.convert:
        lines.append('convert = DcmConverterOperator(dag=dag, input_operator=get_input, output_format="nrrd")')
        order.append("convert")
        source = "convert"
    if chain.after:
        lines.append(f"before = {class_name(chain.after)}Operator(dag=dag, input_operator=get_input)")
        order.append("before")
        source = "before"
    lines.append(f"algorithm = {class_name(spec.name)}Operator(dag=dag, input_operator={source})")
    order.append("algorithm")
    sent = "algorithm"
    if chain.segmentation:
        lines.append(
            "segmentation = Itk2DcmSegOperator(\n"
            "    dag=dag,\n"
            "    input_operator=get_input,\n"
            "    segmentation_operator=algorithm,\n"
            '    input_type="single_label_segs",\n'
            f"    single_label_seg_info={chain.segmentation!r},\n"
            f"    series_description={spec.name!r},\n"
            "    skip_empty_slices=True,\n"
            ")"
        )
        order.append("segmentation")
        sent = "segmentation"
    if chain.segmentation or chain.send:
        lines.append(f"send = DcmSendOperator(dag=dag, input_operator={sent})")
        order.append("send")
    if chain.suffixes:
        arguments = profile.store_arguments.format(
            task="algorithm",
            suffixes=repr(chain.suffixes),
            inputs="none_batch_input_operators" if chain.batch_level else "batch_input_operators",
        )
        lines.append(f"store = {profile.store_operator}(dag=dag, {arguments})")
        order.append("store")
    lines.append("clean = LocalWorkflowCleanerOperator(dag=dag, clean_workflow_dir=True)")
    order.append("clean")
    return "\n".join([*lines, "", " >> ".join(order)])


def disarmed(value: Any) -> Any:
    """A value of the notebook whose texts the DAG installer takes for no image.

    It reads ``image="…"`` anywhere in a module as an image that the platform shall pull, in words of a docstring too.
    """
    if isinstance(value, str):
        return re.sub(r"image\s*=", "image :", value)
    if isinstance(value, dict):
        return {key: disarmed(item) for key, item in value.items()}
    return [disarmed(item) for item in value] if isinstance(value, list) else value


def _docstring(text: str) -> str:
    """A docstring that no text can end early."""
    plain: str = disarmed("".join(character if character.isprintable() else " " for character in text))
    return '"""' + plain.replace("\\", "/").replace('"', "'") + '"""'
