"""kaapana-nb's own wheel for a container, made from the installed package: same package, same bytes.

No package index has this version at hand in a hospital, so every export brings it along. The emulator stays out (it
stands for the platform, which a container has around it), and so do charts and tutorials.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import io
import zipfile
from pathlib import Path

import kaapana_nb
from kaapana_nb import __version__

WHEEL_NAME = f"kaapana_nb-{__version__}-py3-none-any.whl"
_EPOCH = (1980, 1, 1, 0, 0, 0)
_LEFT_OUT = ("emulator", "charts", "notebooks")
_INFO = f"kaapana_nb-{__version__}.dist-info"


def own_wheel() -> bytes:
    """The wheel (PEP 427), deterministic to the byte."""
    files = {**_package_files(), **_metadata()}
    record = "".join(f"{name},sha256={_hash(data)},{len(data)}\n" for name, data in sorted(files.items()))
    files[f"{_INFO}/RECORD"] = (record + f"{_INFO}/RECORD,,\n").encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in sorted(files.items()):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o100644 << 16
            info.create_system = 3
            archive.writestr(info, data, compresslevel=9)
    return buffer.getvalue()


def _package_files() -> dict[str, bytes]:
    root = Path(kaapana_nb.__file__).parent
    found = {}
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        if path.is_file() and parts[0] not in _LEFT_OUT and "__pycache__" not in parts and path.suffix != ".pyc":
            found["/".join(("kaapana_nb", *parts))] = path.read_bytes()
    return found


def _metadata() -> dict[str, bytes]:
    distribution = importlib.metadata.distribution("kaapana-nb")
    text = distribution.read_text("METADATA") or ""
    head, _, _ = text.partition("\n\n")  # the long description is the README: nothing a container needs
    version = [line if not line.startswith("Version:") else f"Version: {__version__}" for line in head.splitlines()]
    return {
        f"{_INFO}/METADATA": ("\n".join(version) + "\n").encode(),
        f"{_INFO}/WHEEL": b"Wheel-Version: 1.0\nGenerator: kaapana-nb\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{_INFO}/entry_points.txt": b"[console_scripts]\nkaapana-nb = kaapana_nb.cli.main:main\n",
    }


def _hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
