"""A wheel made by hand, for tests of layers and wheels."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


@pytest.fixture
def wheel(tmp_path: Path) -> Callable[..., Path]:
    """Make a wheel of `files`; `record` overrides what RECORD says, `extra` adds members it does not list."""

    def make(
        files: Mapping[str, bytes],
        name: str = "thing",
        version: str = "1.0",
        record: Mapping[str, str] | None = None,
        stored: bool = False,
    ) -> Path:
        info = f"{name}-{version}.dist-info"
        members = {
            **files,
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
            f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        lines = []
        for path, data in members.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            lines.append(f"{path},sha256={(record or {}).get(path, digest)},{len(data)}\n")
        members[f"{info}/RECORD"] = "".join([*lines, f"{info}/RECORD,,\n"]).encode()
        path = tmp_path / f"{name}-{version}-py3-none-any.whl"
        kind = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(path, "w", kind) as archive:
            for member, data in members.items():
                entry = zipfile.ZipInfo(member)
                entry.external_attr = (0o100755 if member.endswith((".so", "/tool")) else 0o100644) << 16
                archive.writestr(entry, data, kind)
        return path

    return make
