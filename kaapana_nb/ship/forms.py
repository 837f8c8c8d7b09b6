"""The workflow form of an algorithm: JSON schema as the platform's interface shows it."""

from __future__ import annotations

from typing import Any

from kaapana_nb.work.notebook import AlgorithmSpec
from kaapana_nb.work.parameters import Parameter

_TYPES = {"int": "integer", "float": "number", "str": "string", "bool": "boolean"}

SINGLE_EXECUTION: dict[str, Any] = {
    "title": "single execution",
    "description": "Should each series be processed separately?",
    "type": "boolean",
    "default": False,
    "readOnly": False,
}
"""Offered by every workflow: one run per series instead of one for all."""


def workflow_form(algorithm: AlgorithmSpec) -> dict[str, Any]:
    """``ui_forms`` of the algorithm's DAG."""
    properties = {parameter.name: property_of(parameter) for parameter in algorithm.parameters}
    required = [parameter.name for parameter in algorithm.parameters if parameter.required]
    form: dict[str, Any] = {"type": "object", "properties": {**properties, "single_execution": SINGLE_EXECUTION}}
    if required:
        form["required"] = required
    return {"workflow_form": form}


def property_of(parameter: Parameter) -> dict[str, Any]:
    """One field of the form."""
    field: dict[str, Any] = {
        "title": parameter.name.replace("_", " "),
        "description": parameter.description or f"{parameter.allowed[0].upper()}{parameter.allowed[1:]}.",
        "type": _TYPES[parameter.type],
    }
    if parameter.choices:
        field["enum"] = list(parameter.choices)
    if not parameter.required:
        # An empty text is what a form sends for a field that is left empty, and means None to such a parameter.
        field["default"] = "" if parameter.default is None else parameter.default
        if parameter.default is None:
            field["type"] = "string"
    bounds = {
        "minimum": parameter.minimum,
        "maximum": parameter.maximum,
        "exclusiveMinimum": parameter.exclusive_minimum,
        "exclusiveMaximum": parameter.exclusive_maximum,
    }
    field |= {name: bound for name, bound in bounds.items() if bound is not None}
    return {**field, "readOnly": False}
