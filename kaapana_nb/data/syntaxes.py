"""Transfer syntaxes (PS3.6 table A-1): how each is decoded, and what reads those that are not."""

from __future__ import annotations

from typing import Literal

Codec = Literal["native", "rle", "jpeg", "jpeg-ls", "jpeg-2000"]

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"

CODECS: dict[str, Codec] = {
    IMPLICIT_LITTLE: "native",
    EXPLICIT_LITTLE: "native",
    DEFLATED: "native",
    EXPLICIT_BIG: "native",
    "1.2.840.10008.1.2.5": "rle",
    "1.2.840.10008.1.2.4.50": "jpeg",  # baseline, 8 bit
    "1.2.840.10008.1.2.4.51": "jpeg",  # extended, 8 or 12 bit
    "1.2.840.10008.1.2.4.57": "jpeg",  # lossless
    "1.2.840.10008.1.2.4.70": "jpeg",  # lossless, first-order prediction
    "1.2.840.10008.1.2.4.80": "jpeg-ls",
    "1.2.840.10008.1.2.4.81": "jpeg-ls",
    "1.2.840.10008.1.2.4.90": "jpeg-2000",
    "1.2.840.10008.1.2.4.91": "jpeg-2000",
}

_OTHERS = {
    "1.2.840.10008.1.2.4.201": ("HTJ2K lossless", "pylibjpeg-openjpeg"),
    "1.2.840.10008.1.2.4.202": ("HTJ2K lossless RPCL", "pylibjpeg-openjpeg"),
    "1.2.840.10008.1.2.4.203": ("HTJ2K", "pylibjpeg-openjpeg"),
    "1.2.840.10008.1.2.4.110": ("JPEG XL lossless", "imagecodecs"),
    "1.2.840.10008.1.2.4.112": ("JPEG XL", "imagecodecs"),
    "1.2.840.10008.1.2.4.92": ("JPEG 2000 part 2", "imagecodecs"),
    "1.2.840.10008.1.2.4.93": ("JPEG 2000 part 2", "imagecodecs"),
}
_MPEG = "1.2.840.10008.1.2.4.10"  # 100 to 108: MPEG-2, H.264, H.265


def syntax_problem(uid: str | None) -> tuple[str, str] | None:
    """Problem and remedy of a transfer syntax whose pixels are not decoded here; ``None`` for the others."""
    if uid in CODECS:
        return None
    if uid is None:
        return "The header has no TransferSyntaxUID.", "Fetch the series again."
    if uid in _OTHERS:
        name, package = _OTHERS[uid]
        return (
            f"The pixels are compressed as {name} ({uid}), which is not decoded here.",
            f"Let the PACS send another transfer syntax, or read the file yourself with the package {package}.",
        )
    if uid.startswith(_MPEG) and len(uid) == len(_MPEG) + 1:
        return (
            f"The pixels are a video ({uid}), which is not decoded here.",
            "Read the file yourself with the package av (PyAV).",
        )
    return (
        f"The transfer syntax {uid} is not known.",
        "Let the PACS send another transfer syntax, e.g. Explicit VR Little Endian.",
    )
