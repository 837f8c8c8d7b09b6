from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaapana_nb.errors import ParameterError
from kaapana_nb.work.parameters import Parameter, parameters_of, resolve


class Ge:
    def __init__(self, ge: float) -> None:
        self.ge = ge


def function(
    image: object,
    *,
    count: Annotated[int, Ge(0)] = 3,
    sigma: float = 1.5,
    mode: Literal["fast", "exact"] = "fast",
    invert: bool = False,
    label: str = "",
    seed: int | None = None,
) -> None:
    """Do it.

    Parameters
    ----------
    image
        The input.
    count
        How many,
        in all.
    sigma, mode
        Shared words.

    Returns
    -------
    nothing
        At all.
    """


BY_NAME = {parameter.name: parameter for parameter in parameters_of(function)}


def test_the_signature_says_everything() -> None:
    assert list(BY_NAME) == ["count", "sigma", "mode", "invert", "label", "seed"]
    assert BY_NAME["count"] == Parameter(
        name="count", type="int", default=3, minimum=0, description="How many, in all."
    )
    assert BY_NAME["mode"].choices == ("fast", "exact")
    assert BY_NAME["mode"].description == "Shared words."
    assert BY_NAME["seed"].optional
    assert BY_NAME["seed"].default is None
    assert BY_NAME["sigma"].variable == "SIGMA"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("count", " 7 ", 7),
        ("sigma", "2", 2.0),
        ("sigma", "1e-3", 0.001),
        ("mode", "exact", "exact"),
        ("invert", "True", True),
        ("invert", "false", False),
        ("label", " as it is ", " as it is "),
        ("seed", "", None),
        ("seed", "12", 12),
    ],
)
def test_texts_that_are_allowed(name: str, text: str, value: object) -> None:
    assert BY_NAME[name].parse(text) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("count", "-1"),
        ("count", "1.0"),
        ("count", ""),
        ("count", "9" * 30),
        ("count", "٣"),
        ("sigma", "nan"),
        ("sigma", "inf"),
        ("sigma", "one"),
        ("mode", "slow"),
        ("invert", "maybe"),
        ("label", "x" * 10_001),
    ],
)
def test_texts_that_are_refused_name_parameter_value_and_what_is_allowed(name: str, text: str) -> None:
    with pytest.raises(ParameterError) as caught:
        BY_NAME[name].parse(text)
    assert name in caught.value.problem
    assert BY_NAME[name].allowed in caught.value.problem
    assert len(caught.value.problem) < 300


@given(st.integers(min_value=0, max_value=10**17))
def test_every_number_comes_back_from_its_text(value: int) -> None:
    assert BY_NAME["count"].parse(str(value)) == value


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_comes_back_from_its_text(value: float) -> None:
    assert BY_NAME["sigma"].parse(repr(value)) == value


def test_values_come_from_the_call_then_the_form_then_the_default() -> None:
    parameters = tuple(BY_NAME.values())
    values = resolve(parameters, {"count": 1}, {"count": "2", "sigma": "4"})
    assert (values["count"], values["sigma"], values["mode"]) == (1, 4.0, "fast")


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    from kaapana_nb.work.parameters import reject_unknown

    with pytest.raises(ParameterError, match="count"):
        reject_unknown(tuple(BY_NAME.values()), {"cuont": 1})


@pytest.mark.parametrize("value", [True, 1.5, "3", None])
def test_python_values_are_not_converted(value: Any) -> None:
    with pytest.raises(ParameterError):
        BY_NAME["count"].check(value)


def test_a_name_of_the_platform_is_refused() -> None:
    def takes_run_id(image: object, *, run_id: str = "") -> None: ...

    with pytest.raises(ParameterError, match="RUN_ID"):
        parameters_of(takes_run_id)


def test_a_type_that_no_form_shows_is_refused() -> None:
    def takes_list(image: object, *, values: list[int] = []) -> None: ...  # noqa: B006 - the default is not the point

    with pytest.raises(ParameterError, match="values"):
        parameters_of(takes_list)
