"""The error tree: problem and remedy survive pickling, and the module's docstring draws the tree as it is."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Iterator

import pytest

from kaapana_nb import errors
from kaapana_nb.errors import KaapanaNbError, ParameterError, UsageError


def tree(root: type[KaapanaNbError]) -> Iterator[type[KaapanaNbError]]:
    yield root
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from tree(child)


CLASSES = list(tree(KaapanaNbError))


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_pickles_with_problem_and_remedy(kind: type[KaapanaNbError]) -> None:
    error = kind("seen 'x', expected y", "Do z.")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is kind
        assert (again.problem, again.remedy) == ("seen 'x', expected y", "Do z.")
    assert "seen 'x', expected y" in str(error)
    assert "Do z." in str(error)


def test_docstring_draws_every_class() -> None:
    drawn = re.findall(r"^[│ ├└─]*(\w+Error)\b", errors.__doc__ or "", flags=re.MULTILINE)
    assert sorted(drawn) == sorted(kind.__name__ for kind in CLASSES)


def test_wrong_calls_exit_with_2_and_all_others_with_1() -> None:
    assert {kind for kind in CLASSES if kind.exit_code == 2} == {UsageError, ParameterError}
    assert {kind.exit_code for kind in CLASSES} == {1, 2}
