"""The chain of operators that fits an algorithm's types: what comes before it, and where its results go."""

from __future__ import annotations

from dataclasses import dataclass

from kaapana_nb.work.notebook import AlgorithmSpec

_IMAGES = frozenset({"Image", "SeriesVolume"})
_SUFFIXES = {
    "Image": ".nrrd",
    "SeriesVolume": ".nrrd",
    "dict": ".json",
    "Dataset": ".dcm",
    "FileDataset": ".dcm",
    "DataFrame": ".csv",
    "Figure": ".png",
}
ALL_SUFFIXES = tuple(sorted(set(_SUFFIXES.values())))


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """What runs around an algorithm.

    Attributes
    ----------
    convert
        Whether DICOM is converted to NRRD first: the algorithm takes an image.
    after
        Another exported algorithm whose results are the input.
    segmentation
        Anatomy of the mask that becomes a DICOM SEG and goes to the PACS; ``None`` for other results.
    send
        Whether the results are DICOM themselves and go to the PACS.
    suffixes
        Suffixes of the files that go to the object store; empty when none go.
    batch_level
        Whether the results are the whole batch's.
    """

    convert: bool
    after: str | None
    segmentation: str | None
    send: bool
    suffixes: tuple[str, ...]
    batch_level: bool

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps by name, as documentation shows them."""
        names = ["get input"]
        names += ["convert"] if self.convert else []
        names += [self.after] if self.after else []
        names.append("algorithm")
        names += ["DICOM SEG"] if self.segmentation else []
        names += ["send to PACS"] if self.segmentation or self.send else []
        names += ["object store"] if self.suffixes else []
        return (*names, "clean")


def chain_for(algorithm: AlgorithmSpec) -> Chain:
    """The chain that fits an algorithm's annotations and declarations."""
    takes = algorithm.input_type.rpartition(".")[2].strip("'\"")
    gives = _result_types(algorithm.output_type)
    mask = algorithm.options.mask
    send = mask is None and gives == {"Dataset"}
    suffixes: tuple[str, ...] = ()
    if mask is None and not send:
        known = {_SUFFIXES[name] for name in gives if name in _SUFFIXES}
        suffixes = tuple(sorted(known)) or ALL_SUFFIXES
    return Chain(
        convert=takes in _IMAGES and algorithm.options.input_operator is None,
        after=algorithm.options.input_operator,
        segmentation=mask,
        send=send,
        suffixes=suffixes,
        batch_level=takes == "Batch",
    )


def chain_of_unknown(*, batch_level: bool) -> Chain:
    """The chain of a notebook without an algorithm, or of a script with its own loop: all its files are kept."""
    return Chain(
        convert=False,
        after=None,
        segmentation=None,
        send=False,
        suffixes=(*ALL_SUFFIXES, ".html", ".ipynb"),
        batch_level=batch_level,
    )


def _result_types(annotation: str) -> set[str]:
    """Names of the result's types: the members of ``list[…]`` and ``dict[str, …]``, else the type itself."""
    text = annotation.strip("'\"").replace(" ", "")
    outer, bracket, inner = text.partition("[")
    name = outer.rpartition(".")[2]
    if bracket and name in {"list", "tuple", "List"}:
        return _result_types(inner.rstrip("]").split(",")[0])
    if bracket and name in {"dict", "Dict"}:
        value = inner.removesuffix("]").partition(",")[2]
        types = _result_types(value)
        return types if types & (set(_SUFFIXES) - {"dict"}) else {"dict"}
    members = [member.rpartition(".")[2] for member in text.split("|")]
    return {"Dataset" if member == "FileDataset" else member for member in members if member not in {"None", ""}}
