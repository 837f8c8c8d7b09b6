"""How a batch element becomes an algorithm's input: a registry keyed by the parameter's annotation.

Keys are module and name as text, so the registry knows ``SimpleITK.Image`` without importing SimpleITK.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kaapana_nb.data.element import BatchElement
from kaapana_nb.data.scan import scan_files
from kaapana_nb.errors import AlgorithmError, DicomError

Loader = Callable[[BatchElement], Any]

_LOADERS: dict[str, Loader] = {}


def type_key(annotation: Any) -> str:
    """Text that names an annotation: ``SimpleITK.SimpleITK.Image``, ``builtins.list[pydicom.dataset.Dataset]``."""
    if isinstance(annotation, str):
        return annotation
    origin = typing.get_origin(annotation)
    if origin is not None and not isinstance(annotation, type(typing.Any)):
        arguments = ", ".join(type_key(argument) for argument in typing.get_args(annotation))
        return f"{type_key(origin)}[{arguments}]"
    if annotation is None or annotation is types.NoneType:
        return "None"
    module, name = getattr(annotation, "__module__", ""), getattr(annotation, "__qualname__", repr(annotation))
    # pathlib moved its classes between Python versions
    return f"pathlib.{name}" if module.split(".")[0] == "pathlib" else f"{module}.{name}"


def register_loader(annotation: Any, function: Loader) -> None:
    """Let algorithms take `annotation` as their input: `function` makes it from a `BatchElement`.

    A later registration of the same annotation replaces the earlier one.
    """
    _LOADERS[type_key(annotation)] = function


def has_loader(annotation: Any) -> bool:
    """Whether an algorithm may take `annotation` as its input."""
    return type_key(annotation) in _LOADERS


def load_input(annotation: Any, element: BatchElement) -> Any:
    """What an algorithm whose first parameter has this annotation is called with.

    Raises
    ------
    AlgorithmError
        When there is no loader for the annotation.
    """
    return loader_of(annotation)(element)


def loader_of(annotation: Any) -> Loader:
    """The loader of an annotation.

    Raises
    ------
    AlgorithmError
        When there is none.
    """
    key = type_key(annotation)
    try:
        return _LOADERS[key]
    except KeyError:
        raise AlgorithmError(
            f"An algorithm's input cannot be of type {_short(key)}; one of "
            f"{', '.join(sorted(map(_short, _LOADERS)))} was expected.",
            "Annotate the first parameter with one of these types, or teach kaapana-nb yours: "
            "register_loader(TYPE, function).",
        ) from None


def _short(key: str) -> str:
    """``builtins.list[pydicom.dataset.Dataset]`` -> ``list[Dataset]``."""
    head, bracket, tail = key.partition("[")
    inner = ", ".join(_short(part) for part in tail[:-1].split(", ")) if bracket else ""
    return head.rsplit(".", 1)[-1] + (f"[{inner}]" if bracket else "")


def _load_datasets(element: BatchElement) -> list[Any]:
    import pydicom

    from kaapana_nb.data.pixels import read_deflated
    from kaapana_nb.data.syntaxes import DEFLATED

    datasets = []
    for header in element.instances():
        try:
            if header.transfer_syntax_uid == DEFLATED:
                datasets.append(read_deflated(header, header.number_of_frames or 1))
            else:
                datasets.append(pydicom.dcmread(header.path, force=True))
        except Exception as error:
            raise DicomError(
                f"Batch element {element.name}: {header.path.name} cannot be read ({type(error).__name__}).",
                "Fetch the series again, or see every problem: kaapana-nb batch check DIR",
            ) from error
    return datasets


def _load_path(element: BatchElement) -> Path:
    if element.members is not None and len(element.members) < len(scan_files(element.input_dir)):
        raise AlgorithmError(
            f"{element.input_dir} holds more than series {element.name}, so its path is no input of one element.",
            "Take BatchElement as the algorithm's first parameter and use element.files(), or open a workflow run.",
        )
    return element.input_dir


register_loader("SimpleITK.SimpleITK.Image", BatchElement.image)
register_loader("kaapana_nb.data.volume.SeriesVolume", BatchElement.volume)
register_loader("builtins.list[pydicom.dataset.Dataset]", _load_datasets)
register_loader(BatchElement, lambda element: element)
register_loader(Path, _load_path)
