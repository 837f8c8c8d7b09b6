from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kaapana_nb.errors import KaapanaNbError, NotebookError, ParameterError
from kaapana_nb.work.notebook import NotebookSpec

Write = Callable[..., Path]

ALGORITHM = """
import SimpleITK as sitk
from kaapana_nb import Batch, algorithm, run

@algorithm(memory_mib=500, version="1.2.3")
def my_filter(image: sitk.Image, *, radius: int = 2, mode: "Literal['a', 'b']" = "a") -> sitk.Image:
    '''Filter it.

    Parameters
    ----------
    radius
        In voxels.
    '''
    return image
"""
RUN = "run(my_filter, Batch.from_environ())"


def test_a_notebook_is_read_without_running_it(notebook: Write) -> None:
    spec = NotebookSpec.read(notebook(ALGORITHM, ("1 / 0", "explore"), RUN))
    algorithm = spec.require_algorithm()
    assert (spec.name, algorithm.function, algorithm.options.version, algorithm.options.memory_mib) == (
        "my-filter",
        "my_filter",
        "1.2.3",
        500,
    )
    assert (algorithm.input_type, algorithm.output_type) == ("sitk.Image", "sitk.Image")
    assert algorithm.description == "Filter it."
    radius, mode = algorithm.parameters
    assert (radius.name, radius.type, radius.default, radius.description) == ("radius", "int", 2, "In voxels.")
    assert mode.choices == ("a", "b")
    assert spec.imports == ("SimpleITK", "kaapana_nb")
    assert [cell.index for cell in spec.cells] == [1, 3]


@pytest.mark.parametrize(
    "decorator",
    [
        "import kaapana_nb\n@kaapana_nb.algorithm",
        "import kaapana_nb as nb\n@nb.algorithm()",
        "from kaapana_nb import algorithm as operator\n@operator",
        "from kaapana_nb import *\n@algorithm",
    ],
)
def test_every_spelling_of_the_decorator_is_known(notebook: Write, decorator: str) -> None:
    spec = NotebookSpec.read(notebook(f"{decorator}\ndef f(x: Path): ...", "run(f, batch)"))
    assert spec.require_algorithm().name == "f"


def test_a_foreign_decorator_of_that_name_is_none_of_ours(notebook: Write) -> None:
    spec = NotebookSpec.read(notebook("from other import algorithm\n@algorithm\ndef f(x: Path): ..."))
    assert spec.algorithm is None


def test_magics_are_no_syntax_errors(notebook: Write) -> None:
    assert NotebookSpec.read(notebook("%matplotlib inline\n!ls\nx = 1")).name == "example"


def test_a_syntax_error_names_cell_and_line(notebook: Write) -> None:
    with pytest.raises(NotebookError, match=r"cell 2, line 3"):
        NotebookSpec.read(notebook("x = 1", "y = 2\n\nz = ("))


def test_two_algorithms_are_one_too_many(notebook: Write) -> None:
    second = "@algorithm\ndef other(image: sitk.Image): ..."
    with pytest.raises(NotebookError, match=r"my_filter \(cell 1\) and other \(cell 2\)"):
        NotebookSpec.read(notebook(ALGORITHM, second))


def test_no_algorithm_and_no_run_cell_are_told_apart(notebook: Write) -> None:
    with pytest.raises(NotebookError, match="has no algorithm"):
        NotebookSpec.read(notebook("x = 1")).require_algorithm()
    with pytest.raises(NotebookError, match="never runs my_filter") as caught:
        NotebookSpec.read(notebook(ALGORITHM, (RUN, "explore"))).require_algorithm()
    assert "run(my_filter, Batch.from_environ())" in caught.value.remedy


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[1]", b"not json", b'{"nbformat": 3, "cells": []}', b'{"nbformat": 4, "cells": [1]}', b"\xff\xfe"],
)
def test_what_is_no_notebook_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.ipynb"
    path.write_bytes(content)
    with pytest.raises(NotebookError, match="no notebook"):
        NotebookSpec.read(path)
    with pytest.raises(NotebookError, match="no readable notebook"):
        NotebookSpec.read(tmp_path / "missing.ipynb")


@pytest.mark.parametrize(
    "default", ["__import__('os').system('true')", "open('/etc/passwd')", "[c for c in ()]", "x", "lambda: 1"]
)
def test_nothing_of_a_signature_is_run(notebook: Write, default: str) -> None:
    source = f"from kaapana_nb import algorithm\n@algorithm\ndef f(x: Path, *, y: int = {default}): ..."
    with pytest.raises(ParameterError, match="literal"):
        NotebookSpec.read(notebook(source))


@pytest.mark.parametrize("annotation", ["__import__('os')", "[int][0]()", "(lambda: int)()", "f'{x}'"])
def test_nothing_of_an_annotation_is_run(notebook: Write, annotation: str) -> None:
    source = f"from kaapana_nb import algorithm\n@algorithm\ndef f(x: Path, *, y: {annotation} = 1): ..."
    with pytest.raises(ParameterError):
        NotebookSpec.read(notebook(source))


def test_bounds_are_read(notebook: Write) -> None:
    source = (
        "from typing import Annotated\nfrom annotated_types import Ge, Interval\nfrom kaapana_nb import algorithm\n"
        "@algorithm\ndef f(x: Path, *, a: Annotated[int, Ge(1)] = 2,\n"
        "      b: Annotated[float, Interval(ge=0, lt=1)] = 0.5): ..."
    )
    a, b = NotebookSpec.read(notebook(source)).algorithm.parameters  # type: ignore[union-attr]
    assert (a.minimum, b.minimum, b.exclusive_maximum) == (1, 0, 1)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(max_size=200))
def test_any_cell_gives_a_spec_or_one_clear_error(tmp_path: Path, source: str) -> None:
    path = tmp_path / "any.ipynb"
    cell = {"cell_type": "code", "source": source, "metadata": {}}
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [cell]}))
    try:
        assert NotebookSpec.read(path).name == "any"
    except KaapanaNbError as error:
        assert error.remedy
