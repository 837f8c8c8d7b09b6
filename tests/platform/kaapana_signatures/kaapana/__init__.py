"""The constructors of Kaapana's operators, and nothing behind them: enough for Airflow to read DAG files.

Signatures only. No operator here does its work; a task that is run fails and says so. What the signatures hold are
facts of the platform's own classes (names, defaults, what they refuse), by generation: ``KAAPANA_GENERATION`` names
the one that this process stands for. The modules have the platform's names, ``kaapana.operators.<Class>`` and so on,
so an import that this generation lacks fails here as it fails there.
"""

import os
import sys
from types import ModuleType

from kaapana import generation_01, generation_06

GENERATIONS = {"0.1": generation_01, "0.6": generation_06}


def _module(name: str, **members: object) -> None:
    module = ModuleType(name)
    module.__dict__.update(members)
    sys.modules[name] = module


_chosen = GENERATIONS[os.environ["KAAPANA_GENERATION"]]
for _package in ("kaapana.operators", "kaapana.blueprints"):
    _module(_package, __path__=[])
for _operator in _chosen.OPERATORS:
    _extra = _chosen.BASE_MODULE if _operator.__name__ == "KaapanaBaseOperator" else {}
    _module(f"kaapana.operators.{_operator.__name__}", **{_operator.__name__: _operator}, **_extra)
_module("kaapana.blueprints.kaapana_global_variables", **_chosen.GLOBAL_VARIABLES)
