"""How an algorithm's result becomes files: a registry keyed by the result's type.

Each writer writes one value to one open file; `write_result` opens the files so that they all appear,
whole, or none does.
"""

from __future__ import annotations

import contextlib
import json
import math
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from kaapana_nb.data.loaders import type_key
from kaapana_nb.errors import AlgorithmError
from kaapana_nb.files import atomic_file

if TYPE_CHECKING:
    from kaapana_nb.data.volume import SeriesVolume

Write = Callable[[Any, BinaryIO], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """How values of one type are written: the file's suffix (with dot) and the function."""

    suffix: str
    write: Write


_WRITERS: dict[str, Writer] = {}


def register_writer(type_: Any, suffix: str, function: Write) -> None:
    """Let algorithms return `type_`: ``function(value, file)`` writes it to a binary file ending in `suffix`.

    A later registration of the same type replaces the earlier one.
    """
    _WRITERS[type_key(type_)] = Writer(suffix=suffix, write=function)


def has_writer(annotation: Any) -> bool:
    """Whether an algorithm may declare `annotation` as its result."""
    if annotation is None or type_key(annotation) == "None":
        return True
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is list and len(arguments) == 1:
        return _declared(arguments[0]) is not None
    if origin is dict:
        return True
    return annotation in (dict, list) or _declared(annotation) is not None


def write_result(value: Any, directory: Path, stem: str, *, annotation: Any = None) -> tuple[Path, ...]:
    """Write what an algorithm returned to `directory`; returns the files written, none for ``None``.

    Parameters
    ----------
    stem
        File name without suffix: the element's name. A list gives ``<stem>-<index>``; a dict that is
        annotated ``dict[str, X]`` with X one of the file types gives ``<stem>-<key>``.
    annotation
        The algorithm's return annotation.

    Raises
    ------
    AlgorithmError
        When a value has no writer, a key is no file name, or a number cannot be written. Nothing is
        written then.
    """
    named = _named_values(value, stem, annotation)
    targets = [(directory / f"{name}{writer.suffix}", writer, item) for name, writer, item in named]
    with contextlib.ExitStack() as stack:
        for path, writer, item in targets:
            writer.write(item, stack.enter_context(atomic_file(path)))
    return tuple(path for path, _, _ in targets)


def _named_values(value: Any, stem: str, annotation: Any) -> list[tuple[str, Writer, Any]]:
    if value is None:
        return []
    if isinstance(value, (list, tuple)):
        return [(f"{stem}-{index}", _writer_of(item), item) for index, item in enumerate(value)]
    arguments = typing.get_args(annotation)
    if isinstance(value, dict) and len(arguments) == 2 and _declared(arguments[1]) is not None:
        return [(f"{stem}-{_plain(key)}", _writer_of(item), item) for key, item in sorted(value.items())]
    return [(stem, _writer_of(value), value)]


def _plain(key: Any) -> str:
    """A dict key as part of a file name."""
    name = key if isinstance(key, str) else ""
    if not name or len(name) > 100 or not all(letter.isalnum() or letter in "._-" for letter in name):
        raise AlgorithmError(
            f"A result has the key {str(key)[:100]!r}; letters, digits, dots, dashes and underscores were expected, "
            "because it becomes part of a file name.",
            "Rename the key.",
        )
    return name


def _writer_of(value: Any) -> Writer:
    for base in type(value).__mro__:
        writer = _WRITERS.get(type_key(base))
        if writer is not None:
            return writer
    raise _no_writer(type_key(type(value)))


def _declared(annotation: Any) -> Writer | None:
    for base in getattr(annotation, "__mro__", (annotation,)):
        writer = _WRITERS.get(type_key(base))
        if writer is not None:
            return writer
    return None


def _no_writer(key: str) -> AlgorithmError:
    kinds = sorted(f"{known.rsplit('.', 1)[-1]} ({writer.suffix})" for known, writer in _WRITERS.items())
    return AlgorithmError(
        f"A result of type {key.rsplit('.', 1)[-1]} cannot be written; one of {', '.join(kinds)}, "
        "a list of these or dict[str, one of these] was expected.",
        "Return one of these types, or teach kaapana-nb yours: register_writer(TYPE, suffix, function).",
    )


def _write_image(image: Any, file: BinaryIO) -> None:
    import SimpleITK as sitk

    from kaapana_nb.data.nrrd import write_nrrd

    pixel_type = image.GetPixelIDTypeAsString()
    if "label map" in pixel_type or "complex" in pixel_type:
        raise AlgorithmError(
            f"A result image has the pixel type {pixel_type!r}; integer or real pixels were expected.",
            "Convert it, e.g. sitk.LabelMapToLabel(image).",
        )
    write_nrrd(
        file,
        sitk.GetArrayViewFromImage(image),
        spacing=image.GetSpacing(),
        origin=image.GetOrigin(),
        direction=image.GetDirection(),
        vector="vector" in pixel_type,
    )


def _write_volume(volume: SeriesVolume, file: BinaryIO) -> None:
    from kaapana_nb.data.nrrd import write_nrrd

    array = volume.rescaled()
    write_nrrd(
        file,
        array.view("uint8") if array.dtype.kind == "b" else array,
        spacing=volume.spacing,
        origin=volume.origin,
        direction=volume.direction,
        vector=array.ndim == 4,
    )


def _write_json(value: dict[Any, Any], file: BinaryIO) -> None:
    try:
        text = json.dumps(_jsonable(value, ""), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        file.write(text.encode() + b"\n")
    except (RecursionError, UnicodeEncodeError) as error:
        raise AlgorithmError(
            f"A result cannot be written as JSON ({type(error).__name__}).",
            "Return plain values: no circles, no broken text.",
        ) from error


def _jsonable(value: Any, where: str) -> Any:
    """A value made of JSON's own types; `where` is the path to it for the error."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise AlgorithmError(
                f"A result holds {value} at {where or 'its top'}; JSON has finite numbers only.",
                "Return None or leave the key out where there is no number.",
            )
        return float(value)
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise AlgorithmError(
                    f"A result has the key {str(key)[:100]!r} of type {type(key).__name__} at {where or 'its top'}; "
                    "JSON keys are text.",
                    "Make the key a str.",
                )
        return {key: _jsonable(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if hasattr(value, "tolist") and hasattr(value, "dtype"):
        return _jsonable(value.tolist(), where)
    if type(value).__module__.startswith("pydicom."):
        return str(value)
    raise AlgorithmError(
        f"A result holds a {type(value).__name__} at {where or 'its top'}; text, numbers, lists and dicts "
        "were expected.",
        "Convert it, e.g. str(value) or list(value).",
    )


def _write_dataset(dataset: Any, file: BinaryIO) -> None:
    import pydicom

    try:
        pydicom.dcmwrite(file, dataset, enforce_file_format=True)
    except Exception as error:
        raise AlgorithmError(
            f"A result Dataset cannot be written as a DICOM file ({type(error).__name__}).",
            "Give it file_meta with TransferSyntaxUID, SOPClassUID and SOPInstanceUID.",
        ) from error


def _write_table(table: Any, file: BinaryIO) -> None:
    unnamed = list(table.index) == list(range(len(table))) and table.index.name is None
    file.write(table.to_csv(index=not unnamed, lineterminator="\n").encode())


def _write_figure(figure: Any, file: BinaryIO) -> None:
    figure.savefig(file, format="png", metadata={"Software": None, "Creation Time": None})


register_writer("SimpleITK.SimpleITK.Image", ".nrrd", _write_image)
register_writer("kaapana_nb.data.volume.SeriesVolume", ".nrrd", _write_volume)
register_writer(dict, ".json", _write_json)
register_writer("pydicom.dataset.Dataset", ".dcm", _write_dataset)
register_writer("pandas.DataFrame", ".csv", _write_table)
register_writer("matplotlib.figure.Figure", ".png", _write_figure)
