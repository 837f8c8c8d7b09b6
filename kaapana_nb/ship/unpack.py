"""What `pip install --target` would put into an image, as layer entries, without running anything.

PyPA's `installer` decides where each file of a wheel goes; here it is given a destination that takes
notes instead of writing. Sources: PEP 427 (wheels), PEP 376 and 627 (RECORD), PEP 610 (direct_url.json),
pip's ``home`` scheme, which ``--target`` uses.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import zipfile
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

from installer import install
from installer.destinations import WheelDestination
from installer.exceptions import InstallerError
from installer.records import Hash, InvalidRecordEntry, RecordEntry
from installer.scripts import Script
from installer.sources import WheelFile

from kaapana_nb.errors import BuildError
from kaapana_nb.ship.layers import SHEBANG, Entry, ZipMember

if TYPE_CHECKING:
    from collections.abc import Iterable

    from installer.utils import Scheme

    from kaapana_nb.ship.wheels import Wheel

_MAX_FILES = 200_000
_MAX_UNPACKED = 16 << 30  # bytes of one wheel; the largest machine-learning wheels unpack to a few GiB
_BESIDE_LIBRARY = "../../"  # pip's home scheme: the library is <home>/lib/python
_PREFIX = {"purelib": "", "platlib": "", "scripts": "bin/", "data": ""}
_RECORDED = {"purelib": "", "platlib": "", "scripts": f"{_BESIDE_LIBRARY}bin/", "data": _BESIDE_LIBRARY}


def wheel_entries(wheel: Wheel, target: str) -> list[Entry]:
    """The files of `wheel` below `target` (an absolute path in the image), in a fixed order.

    Raises
    ------
    BuildError
        When the file is no wheel, is damaged, or would put files elsewhere.
    """
    try:
        with WheelFile.open(wheel.path) as source:
            contents = source._zipfile.infolist()
            if len(contents) > _MAX_FILES or sum(item.file_size for item in contents) > _MAX_UNPACKED:
                raise BuildError(
                    f"{wheel.path.name} has {len(contents)} files and unpacks to "
                    f"{sum(item.file_size for item in contents) >> 20} MiB; at most {_MAX_FILES} files and "
                    f"{_MAX_UNPACKED >> 20} MiB were expected.",
                    "Pin another version of the package.",
                )
            destination = _Notes(wheel, target, source)
            metadata = {"INSTALLER": b"pip\n", "REQUESTED": b""}
            if wheel.container_path:
                metadata["direct_url.json"] = _direct_url(wheel)
            install(source, destination, metadata)
            return destination.entries
    except (
        InstallerError,
        InvalidRecordEntry,
        csv.Error,
        zipfile.BadZipFile,
        ValueError,
        KeyError,
        OSError,
        NotImplementedError,
    ) as error:
        raise BuildError(
            f"{wheel.path.name} is no usable wheel: {error}.", f"Remove {wheel.path} and build again."
        ) from error


def _direct_url(wheel: Wheel) -> bytes:
    archive = {"hash": f"sha256={wheel.sha256}", "hashes": {"sha256": wheel.sha256}}
    url = f"file://{wheel.container_path}"
    return json.dumps({"archive_info": archive, "url": url}, sort_keys=True).encode()


def _record_hash(data: bytes) -> Hash:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return Hash("sha256", digest)


class _Notes(WheelDestination):
    """An `installer` destination that collects layer entries."""

    def __init__(self, wheel: Wheel, target: str, source: WheelFile) -> None:
        self._wheel = wheel
        self._target = target.strip("/")
        self._recorded = _recorded_hashes(source)
        self._names = set(source._zipfile.namelist())
        self.entries: list[Entry] = []

    def _place(self, scheme: str, path: str) -> tuple[str, str]:
        """Path in the image, and the path as RECORD writes it."""
        inside = PurePosixPath(path)
        if inside.is_absolute() or ".." in inside.parts or "\\" in path:
            raise BuildError(
                f"{self._wheel.path.name} holds {path!r:.200}; a path inside the package was expected.",
                "Do not use this wheel.",
            )
        if scheme == "headers":
            relative = f"include/python/{self._wheel.name}/{inside}"
            return f"{self._target}/{relative}", _BESIDE_LIBRARY + relative
        return f"{self._target}/{_PREFIX[scheme]}{inside}", f"{_RECORDED[scheme]}{inside}"

    def write_script(self, name: str, module: str, attr: str, section: str) -> RecordEntry:
        _, data = Script(name, module, attr, section).generate("python", kind="posix")  # type: ignore[arg-type]
        return self._add("scripts", name, _with_shebang(data), executable=True)

    def write_file(self, scheme: Scheme, path: object, stream: BinaryIO, is_executable: bool) -> RecordEntry:
        inside = str(path)
        member = str(getattr(stream, "name", ""))
        if scheme == "scripts":
            return self._add(scheme, inside, _with_shebang(stream.read()), executable=True)
        if member not in self._names:
            return self._add(scheme, inside, stream.read(), executable=is_executable)
        place, recorded = self._place(scheme, inside)
        digest, size = self._recorded.get(member, ("", None))
        content = ZipMember(archive=self._wheel.path, name=member, sha256=digest)
        self.entries.append(Entry(path=place, mode=0o755 if is_executable else 0o644, content=content))
        return RecordEntry(recorded, Hash("sha256", digest) if digest else None, size)

    def _add(self, scheme: str, path: str, data: bytes, *, executable: bool) -> RecordEntry:
        place, recorded = self._place(scheme, path)
        self.entries.append(Entry(path=place, mode=0o755 if executable else 0o644, content=data))
        return RecordEntry(recorded, _record_hash(data), len(data))

    def finalize_installation(
        self, scheme: Scheme, record_file_path: str, records: Iterable[tuple[Scheme, RecordEntry]]
    ) -> None:
        rows = sorted(
            (record.path, f"{record.hash_.name}={record.hash_.value}" if record.hash_ else "",
             "" if record.size is None else str(record.size))
            for _, record in records
        )  # fmt: skip
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        place, _ = self._place(scheme, record_file_path)
        self.entries.append(Entry(path=place, content=text.getvalue().encode()))


def _with_shebang(data: bytes) -> bytes:
    """Put the image's interpreter into a script that begins with ``#!python`` (PEP 427)."""
    first, newline, rest = data.partition(b"\n")
    return f"#!{SHEBANG}".encode() + newline + rest if first.startswith(b"#!python") else data


def _recorded_hashes(source: WheelFile) -> dict[str, tuple[str, int | None]]:
    """What the wheel's own RECORD says: member name -> (sha256 in base64, size)."""
    rows = csv.reader(source.read_dist_info("RECORD").splitlines())
    recorded: dict[str, tuple[str, int | None]] = {}
    for row in rows:
        if len(row) == 3 and row[1].startswith("sha256="):
            recorded[row[0]] = (row[1].removeprefix("sha256=").rstrip("="), int(row[2]) if row[2] else None)
    return recorded
