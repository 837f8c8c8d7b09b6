"""An algorithm's parameters: read once from its signature, parsed strictly wherever they come from.

The same `Parameter` values become the workflow form, the container's environment, papermill's
parameters and the command line's ``-p name=value``.
"""

from __future__ import annotations

import inspect
import math
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from kaapana_nb.contract.context import RESERVED_VARIABLES
from kaapana_nb.errors import ParameterError

MAX_TEXT = 10_000
"""Longest parameter value accepted, in characters: a form field, not a file."""

RESERVED_NAMES = frozenset({"algorithm", "batch", "jobs", "executor", "progress"})
"""Names that `kaapana_nb.run` takes itself."""

_TYPES: dict[Any, str] = {int: "int", float: "float", str: "str", bool: "bool"}
_INT = re.compile(r"[+-]?[0-9]{1,18}\Z")
_TRUE, _FALSE = frozenset({"true", "1"}), frozenset({"false", "0"})

Value = int | float | str | bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One keyword-only parameter of an algorithm.

    Attributes
    ----------
    name
        As in the signature; the environment variable is the same in upper case.
    type
        ``"int"``, ``"float"``, ``"str"`` or ``"bool"``.
    required
        Whether it has no default.
    optional
        Whether ``None`` is allowed (``int | None``); an empty text means ``None`` then.
    choices
        Allowed values (``Literal``), or empty.
    minimum, maximum, exclusive_minimum, exclusive_maximum
        Bounds from ``Annotated[int, Ge(0)]`` (any object with ``ge``, ``gt``, ``le`` or ``lt``).
    description
        From the ``Parameters`` section of the docstring.
    """

    name: str
    type: str
    default: Value = None
    required: bool = False
    optional: bool = False
    choices: tuple[Value, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    exclusive_minimum: float | None = None
    exclusive_maximum: float | None = None
    description: str = ""

    @property
    def variable(self) -> str:
        """Name of the environment variable."""
        return self.name.upper()

    @property
    def allowed(self) -> str:
        """What is allowed, for error messages and help."""
        if self.choices:
            text = "one of " + ", ".join(repr(choice) for choice in self.choices)
        else:
            text = {"int": "a whole number", "float": "a number", "str": "a text", "bool": "true or false"}[self.type]
        bounds = (
            (self.minimum, "at least"),
            (self.exclusive_minimum, "more than"),
            (self.maximum, "at most"),
            (self.exclusive_maximum, "less than"),
        )
        limits = [f"{words} {bound:g}" for bound, words in bounds if bound is not None]
        if limits:
            text += " of " + " and ".join(limits)
        return text + (", or nothing" if self.optional else "")

    def parse(self, text: str) -> Value:
        """The value that a form, an environment variable or the command line means by `text`.

        Raises
        ------
        ParameterError
            Naming the parameter, the value and what is allowed.
        """
        stripped = text.strip()
        if self.optional and stripped == "":
            return None
        if len(text) > MAX_TEXT:
            raise self._error(text)
        if self.choices:
            for choice in self.choices:
                same = stripped.lower() == str(choice).lower() if isinstance(choice, bool) else stripped == str(choice)
                if same or text == choice:
                    return choice
            raise self._error(text)
        value: Value
        if self.type == "str":
            value = text
        elif self.type == "bool":
            if stripped.lower() not in _TRUE | _FALSE:
                raise self._error(text)
            value = stripped.lower() in _TRUE
        elif self.type == "int":
            if not _INT.match(stripped):
                raise self._error(text)
            value = int(stripped)
        else:
            try:
                value = float(stripped)
            except ValueError:
                raise self._error(text) from None
        return self.check(value)

    def check(self, value: Any) -> Value:
        """Check a value given in Python (or just parsed) against type, choices and bounds."""
        if value is None:
            if self.optional:
                return None
            raise self._error(value)
        if self.type == "float" and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        expected = {"int": int, "float": float, "str": str, "bool": bool}[self.type]
        if not isinstance(value, expected) or (isinstance(value, bool) and self.type != "bool"):
            raise self._error(value)
        if self.choices and value not in self.choices:
            raise self._error(value)
        if isinstance(value, float) and not math.isfinite(value):
            raise self._error(value)
        if isinstance(value, int | float) and not self._within(value):
            raise self._error(value)
        return typing.cast("Value", value)

    def _within(self, value: float) -> bool:
        return (
            (self.minimum is None or value >= self.minimum)
            and (self.maximum is None or value <= self.maximum)
            and (self.exclusive_minimum is None or value > self.exclusive_minimum)
            and (self.exclusive_maximum is None or value < self.exclusive_maximum)
        )

    def _error(self, value: object) -> ParameterError:
        shown = repr(value)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        return ParameterError(
            f"Parameter {self.name} is {shown}; {self.allowed} was expected.", f"Give {self.name} an allowed value."
        )


def parameters_of(function: Any) -> tuple[Parameter, ...]:
    """The keyword-only parameters of an algorithm's function, in the order of its signature.

    Raises
    ------
    ParameterError
        When a parameter has a type that no form can show, or a name that the platform uses itself.
    """
    hints = typing.get_type_hints(function, include_extras=True)
    descriptions = _descriptions(inspect.getdoc(function) or "")
    found = []
    for item in inspect.signature(function).parameters.values():
        if item.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        annotation = hints.get(item.name, type(item.default) if item.default is not item.empty else str)
        found.append(_parameter(item, annotation, descriptions.get(item.name, "")))
    return tuple(found)


def resolve(
    parameters: tuple[Parameter, ...], given: Mapping[str, Any], form: Mapping[str, str | None]
) -> dict[str, Value]:
    """The value of every parameter: given in Python, else from the form, else the default.

    Raises
    ------
    ParameterError
        For an unknown name, a value that is not allowed, or a required parameter without a value.
    """
    reject_unknown(parameters, given)
    values: dict[str, Value] = {}
    for parameter in parameters:
        text = form.get(parameter.name)
        if parameter.name in given:
            values[parameter.name] = parameter.check(given[parameter.name])
        elif text is not None:
            values[parameter.name] = parameter.parse(text)
        elif parameter.required:
            raise ParameterError(
                f"Parameter {parameter.name} has no value and no default.",
                f"Pass it: -p {parameter.name}=VALUE, or run(..., {parameter.name}=VALUE).",
            )
        else:
            values[parameter.name] = parameter.default
    return values


def reject_unknown(parameters: tuple[Parameter, ...], given: Mapping[str, Any], others: tuple[str, ...] = ()) -> None:
    """Raise `ParameterError` when `given` names a parameter that does not exist."""
    known = [parameter.name for parameter in parameters] + list(others)
    unknown = [name for name in given if name not in known]
    if unknown:
        names = ", ".join(known)
        raise ParameterError(
            f"There is no parameter {unknown[0]!r}.",
            f"The parameters are: {names}." if known else "This algorithm takes no parameters; leave it out.",
        )


def _parameter(item: inspect.Parameter, annotation: Any, description: str) -> Parameter:
    name, limits = item.name, _Limits()
    if typing.get_origin(annotation) is Annotated:
        annotation, *notes = typing.get_args(annotation)
        limits = _Limits.of(notes)
    optional = False
    if typing.get_origin(annotation) in {typing.Union, types.UnionType}:
        members = [member for member in typing.get_args(annotation) if member is not type(None)]
        optional = len(members) < len(typing.get_args(annotation))
        annotation = members[0] if len(members) == 1 else annotation
    choices: tuple[Value, ...] = ()
    if typing.get_origin(annotation) is Literal:
        choices = typing.get_args(annotation)
        kinds = {type(choice) for choice in choices}
        annotation = kinds.pop() if len(kinds) == 1 else annotation
    kind = _TYPES.get(annotation)
    if kind is None:
        raise ParameterError(
            f"Parameter {name} has the type {_shown(annotation)}; a form can show int, float, str, bool, "
            "a Literal of one of these, or one of these | None.",
            f"Change the annotation of {name}.",
        )
    if name.upper() in RESERVED_VARIABLES or name in RESERVED_NAMES or name != name.lower():
        raise ParameterError(
            f"Parameter {name} cannot be passed as the environment variable {name.upper()}: "
            "the name is the platform's own, or is not in lower case.",
            f"Rename {name}.",
        )
    required = item.default is item.empty
    parameter = Parameter(
        name=name,
        type=kind,
        required=required,
        optional=optional,
        choices=choices,
        minimum=limits.ge,
        maximum=limits.le,
        exclusive_minimum=limits.gt,
        exclusive_maximum=limits.lt,
        description=description,
    )
    if required:
        return parameter
    default = parameter.check(item.default)
    return Parameter(
        **{field: getattr(parameter, field) for field in Parameter.__slots__ if field != "default"}, default=default
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limits:
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    @classmethod
    def of(cls, notes: list[Any]) -> _Limits:
        found = {
            key: float(value)
            for note in notes
            for key in ("ge", "gt", "le", "lt")
            if isinstance(value := getattr(note, key, None), int | float)
        }
        return cls(**found)


def _shown(annotation: Any) -> str:
    return getattr(annotation, "__name__", None) or str(annotation)


def _descriptions(doc: str) -> dict[str, str]:
    """Descriptions from the ``Parameters`` section of a NumPy docstring."""
    lines = doc.splitlines()
    found: dict[str, list[str]] = {}
    starts = [
        i for i, line in enumerate(lines[:-1]) if line.strip() == "Parameters" and set(lines[i + 1].strip()) == {"-"}
    ]
    if not starts:
        return {}
    current: list[str] = []
    for i in range(starts[0] + 2, len(lines)):
        line = lines[i]
        if line.strip() and not line.startswith(" "):
            if i + 1 < len(lines) and lines[i + 1].strip() and set(lines[i + 1].strip()) == {"-"}:
                break
            current = []
            for name in line.partition(":")[0].split(","):
                found[name.strip()] = current
        elif line.strip():
            current.append(line.strip())
    return {name: " ".join(text) for name, text in found.items()}
