"""``@algorithm``: a typed function becomes an operator's algorithm, and stays callable as a function."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar, overload

from kaapana_nb.contract.names import slug
from kaapana_nb.errors import AlgorithmError
from kaapana_nb.work.options import AlgorithmOptions
from kaapana_nb.work.parameters import Parameter, parameters_of

P = ParamSpec("P")
R = TypeVar("R")


class Algorithm(Generic[P, R]):
    """A function with what an operator needs to know about it. Made by `algorithm`.

    Attributes
    ----------
    name
        Operator, image and directory name: the function's name with dashes.
    function
        The function itself; calling the algorithm calls it.
    input_type, output_type
        Annotation of the first parameter, and of the result.
    parameters
        The keyword-only parameters.
    options
        What the decorator declares: memory, version, mask and the like.
    """

    def __init__(self, function: Callable[P, R], options: AlgorithmOptions) -> None:
        self.function = function
        self.name = slug(function.__name__)
        self.options = options
        hints = typing.get_type_hints(function, include_extras=True)
        first = _first_parameter(function)
        if first not in hints:
            raise AlgorithmError(
                f"The first parameter {first} of {function.__name__} has no annotation.",
                f"Say what it takes, for example: def {function.__name__}({first}: sitk.Image, ...).",
            )
        self.input_type: Any = hints[first]
        self.output_type: Any = hints.get("return")
        self.parameters: tuple[Parameter, ...] = parameters_of(function)
        functools.update_wrapper(self, function)

    @property
    def description(self) -> str:
        """First paragraph of the docstring."""
        return " ".join((inspect.getdoc(self.function) or "").partition("\n\n")[0].split())

    @property
    def is_batch_level(self) -> bool:
        """Whether it takes the whole `Batch` and runs once."""
        from kaapana_nb.data.batch import Batch

        return self.input_type is Batch

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<algorithm {self.name} {self.options.version}: {inspect.signature(self.function)}>"


@overload
def algorithm(function: Callable[P, R], /) -> Algorithm[P, R]: ...
@overload
def algorithm(**options: Any) -> Callable[[Callable[P, R]], Algorithm[P, R]]: ...
def algorithm(
    function: Callable[P, R] | None = None, /, **options: Any
) -> Algorithm[P, R] | Callable[[Callable[P, R]], Algorithm[P, R]]:
    """Declare a function an algorithm.

    Parameters
    ----------
    function
        Takes the input of one batch element (``sitk.Image``, ``SeriesVolume``, ``list[pydicom.Dataset]``,
        ``BatchElement``, ``Path``) or the whole ``Batch``, and keyword-only parameters.
    **options
        See `kaapana_nb.work.options.AlgorithmOptions`: ``memory_mib``, ``version``, ``mask``, ``input_operator``,
        ``apt``, ``requirements``, ``tolerance``.

    Raises
    ------
    AlgorithmError
        When the first parameter has no annotation, or an option is none.
    ParameterError
        When a parameter has a type or name that the platform cannot pass.
    """
    checked = AlgorithmOptions.checked(options)

    def decorate(target: Callable[P, R]) -> Algorithm[P, R]:
        return Algorithm(target, checked)

    return decorate if function is None else decorate(function)


def _first_parameter(function: Callable[..., Any]) -> str:
    positional = [
        item.name
        for item in inspect.signature(function).parameters.values()
        if item.kind in {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    ]
    if len(positional) != 1:
        raise AlgorithmError(
            f"{function.__name__} takes {len(positional)} positional parameters; exactly one, the input, was expected.",
            f"Put a * after the input: def {function.__name__}(image, *, threshold: int = 0).",
        )
    return positional[0]
