"""``/processing-container.json``: the same container for the platform's Task API (0.6), so one notebook serves both."""

from __future__ import annotations

import json
from typing import Any

from kaapana_nb.ship.dag_files import DEFAULT_MEMORY_MIB, PARALLEL, RUNNER_MIB
from kaapana_nb.work.notebook import NotebookSpec
from kaapana_nb.work.parameters import Parameter

INPUT_DIR = "/home/kaapana/input"
OUTPUT_DIR = "/home/kaapana/output"
FILE = "processing-container.json"


def processing_container(spec: NotebookSpec, program: str) -> bytes:
    """The description of the container: one template, its mounts, environment, command and resources."""
    description = (spec.algorithm.description if spec.algorithm else "") or f"Runs {spec.name}."
    memory = (spec.algorithm.options.memory_mib if spec.algorithm else None) or DEFAULT_MEMORY_MIB
    template = {
        "identifier": spec.name,
        "description": description,
        "inputs": [
            {"name": "input", "mounted_path": INPUT_DIR, "description": "<item id>/ with the files of one series"}
        ],
        "outputs": [
            {"name": "output", "mounted_path": OUTPUT_DIR, "description": "<item id>/ with the results of one series"}
        ],
        "env": [_variable(parameter) for parameter in (spec.algorithm.parameters if spec.algorithm else ())],
        "command": [
            "python3", "-m", "kaapana_nb", "execute", program, "--input", INPUT_DIR, "--output", OUTPUT_DIR,
        ],
        "resources": {
            "limits": {"memory": f"{PARALLEL * memory + RUNNER_MIB}Mi"},
            "requests": {"memory": f"{memory + RUNNER_MIB}Mi"},
        },
    }  # fmt: skip
    document = {"name": spec.name, "description": description, "api_version": 1, "templates": [template]}
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def _variable(parameter: Parameter) -> dict[str, Any]:
    """One environment variable; values are texts, as in every environment."""
    value = "" if parameter.default is None else str(parameter.default)
    variable: dict[str, Any] = {"name": parameter.variable, "value": value}
    if parameter.choices:
        variable["choices"] = [str(choice) for choice in parameter.choices]
    return {**variable, "description": parameter.description or parameter.allowed}
