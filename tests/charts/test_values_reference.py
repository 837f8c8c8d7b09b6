"""The table of values in the installer chart's README is written from its schema.

``python tests/charts/test_values_reference.py`` writes it anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.charts

CHART = Path(__file__).resolve().parents[2] / "charts" / "dag-installer-chart"
MARKS = re.compile(r"(<!-- values -->\n).*?(<!-- /values -->)", flags=re.DOTALL)


def rows(schema: dict[str, Any], values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, item in schema["properties"].items():
        if "properties" in item:
            yield from rows(item, values.get(name) or {}, f"{prefix}{name}.")
        else:
            default = f"`{json.dumps(values[name])}`" if name in values else ""
            yield f"| `{prefix}{name}` | {default} | {item['description']} |"


def reference() -> str:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    return "\n".join(["| Value | Default | Meaning |", "| --- | --- | --- |", *rows(schema, values)])


def with_reference(text: str) -> str:
    return MARKS.sub(lambda match: f"{match[1]}{reference()}\n{match[2]}", text)


def test_readme_says_what_the_schema_says() -> None:
    text = (CHART / "README.md").read_text()
    assert MARKS.search(text)
    assert text == with_reference(text)


def test_every_default_is_in_the_schema() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(values) <= set(schema["properties"])
    assert set(values["global"]) <= set(schema["properties"]["global"]["properties"])


if __name__ == "__main__":
    readme = CHART / "README.md"
    readme.write_text(with_reference(readme.read_text()))
