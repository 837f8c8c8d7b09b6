"""Layers: tar files whose bytes depend on nothing but the files in them, and a cache of finished ones.

A layer is a gzip file of several members (RFC 1952, section 2.2: a file is a series of members). A file
that comes deflated out of a wheel becomes a member of its own without being compressed again: the
deflate stream is copied, and only its checksums are computed. Sources: OCI image specification 1.1,
"Image Layer Filesystem Changeset"; POSIX.1-2001 pax archives.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import json
import os
import struct
import tarfile
import time
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from kaapana_nb.clients.oci import LAYER_GZIP, Descriptor, canonical_json
from kaapana_nb.errors import BuildError
from kaapana_nb.files import atomic_file, write_atomic
from kaapana_nb.reference import is_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from kaapana_nb.clients.layout import OciLayout

GZIP_LEVEL = 4
"""Twice as fast as zlib's default and a twentieth larger, measured on the libraries of medical imaging."""

FORMAT = 1
"""Part of every cache key: raise it when the bytes of a layer change."""

UNUSED_S = 30 * 24 * 3600.0
"""How long a cached layer that no build uses is kept."""

SHEBANG = "/usr/bin/env python3"
"""Interpreter of the scripts that packages bring: the first python3 on the image's PATH."""

_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # deflate, no name, time 0, unknown system
_CHUNK = 1 << 20
SYSTEM_DIRECTORIES = frozenset(
    {"bin", "boot", "dev", "etc", "home", "lib", "lib64", "media", "mnt", "opt", "proc", "root", "run", "sbin",
     "srv", "sys", "tmp", "usr", "usr/bin", "usr/lib", "usr/local", "usr/local/bin", "usr/local/lib", "usr/sbin",
     "usr/share", "var", "var/lib", "var/log", "var/tmp).split)"}
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ZipMember:
    """A file inside a wheel; `sha256` is what the wheel's RECORD says of it (empty: not listed)."""

    archive: Path
    name: str
    sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file, directory (no content) or symbolic link (`link`) of a layer; `path` is relative to the root."""

    path: str
    mode: int = 0o644
    content: bytes | Path | ZipMember | None = None
    link: str = ""
    uid: int = 0
    gid: int = 0

    def __post_init__(self) -> None:
        parts = PurePosixPath(self.path).parts
        normal = "/".join(parts) == self.path and ".." not in parts and not self.path.startswith("/")
        if not normal or not self.path or not self.path.isprintable():
            raise BuildError(
                f"{self.path!r:.200} is no path for a file of an image; a plain path inside it was expected.",
                "Rename the file, or leave its package out.",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A finished layer: the compressed blob, and the digest of its tar."""

    descriptor: Descriptor
    diff_id: str
    file: Path


def directories(paths: Iterable[str]) -> Iterator[Entry]:
    """Entries for the parents of `paths`, outermost first, without the system's own directories.

    A base image sets the modes of the system's directories (``/tmp`` is 1777); a layer must not reset them.
    """
    parents = {str(parent) for path in paths for parent in PurePosixPath(path).parents}
    for path in sorted(parents - SYSTEM_DIRECTORIES - {"."}):
        yield Entry(path=path, mode=0o755)


def write_layer(file: BinaryIO, entries: Iterable[Entry]) -> tuple[Descriptor, str]:
    """Write `entries`, sorted by path, as a gzipped tar; give its descriptor and diff id.

    Owners are as the entries say, times are 0, and of two entries with one path the later one counts.
    """
    blob = _Blob(file)
    by_path = {entry.path: entry for entry in entries}
    with _Archives() as archives:
        for path in sorted(by_path):
            _write_entry(blob, by_path[path], archives)
    blob.write(b"\0" * 2 * tarfile.BLOCKSIZE)
    return blob.finish()


def compress_tar(file: BinaryIO, source: IO[bytes]) -> tuple[Descriptor, str]:
    """Write another program's layer, plain or gzipped, as ours are compressed; give descriptor and diff id."""
    head = source.read(2)
    source.seek(0)
    plain = gzip.GzipFile(fileobj=source) if head == b"\x1f\x8b" else source
    blob = _Blob(file)
    while chunk := plain.read(_CHUNK):
        blob.write(chunk)
    return blob.finish()


class _Archives(contextlib.ExitStack):
    """The wheels that a layer is made of, each opened once."""

    def __init__(self) -> None:
        super().__init__()
        self._open: dict[Path, tuple[zipfile.ZipFile, BinaryIO]] = {}

    def get(self, path: Path) -> tuple[zipfile.ZipFile, BinaryIO]:
        if path not in self._open:
            archive = self.enter_context(zipfile.ZipFile(path))
            self._open[path] = (archive, self.enter_context(path.open("rb")))
        return self._open[path]


def _write_entry(blob: _Blob, entry: Entry, archives: _Archives) -> None:
    info = tarfile.TarInfo(entry.path)
    info.mode, info.uid, info.gid = entry.mode, entry.uid, entry.gid
    if entry.link:
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, entry.link, 0o777
    elif entry.content is None:
        info.type = tarfile.DIRTYPE
    elif isinstance(entry.content, bytes):
        info.size = len(entry.content)
    elif isinstance(entry.content, Path):
        info.size = entry.content.stat().st_size
    else:
        _write_member(blob, info, entry.content, archives)
        return
    blob.write(info.tobuf(tarfile.PAX_FORMAT))
    if isinstance(entry.content, bytes):
        blob.write(entry.content)
    elif isinstance(entry.content, Path):
        written = 0
        with entry.content.open("rb") as source:
            while chunk := source.read(_CHUNK):
                written += len(chunk)
                blob.write(chunk)
        if written != info.size:
            raise BuildError(f"{entry.content} changed while it was read.", "Build again.")
    blob.write(b"\0" * (-info.size % tarfile.BLOCKSIZE))


_SPLICE_FROM = 64 * 1024  # bytes; smaller files compress better together


def _write_member(blob: _Blob, info: tarfile.TarInfo, member: ZipMember, archives: _Archives) -> None:
    plain = hashlib.sha256()
    try:
        archive, raw = archives.get(member.archive)
        zipped = archive.getinfo(member.name)
        info.size = zipped.file_size
        blob.write(info.tobuf(tarfile.PAX_FORMAT))
        if zipped.compress_type == zipfile.ZIP_DEFLATED and zipped.file_size >= _SPLICE_FROM:
            blob.splice(_deflated(raw, zipped), zipped.file_size, zipped.CRC, plain)
        else:
            with archive.open(zipped) as source:
                while chunk := source.read(_CHUNK):
                    plain.update(chunk)
                    blob.write(chunk)
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise BuildError(
            f"{member.archive.name} is damaged at {member.name}: {error}.",
            f"Remove {member.archive} and build again.",
        ) from error
    seen = base64.urlsafe_b64encode(plain.digest()).rstrip(b"=").decode()
    if member.sha256 and seen != member.sha256:
        raise BuildError(
            f"{member.name} in {member.archive.name} has sha256 {seen}; the wheel's RECORD says {member.sha256}.",
            f"Remove {member.archive} and build again.",
        )
    blob.write(b"\0" * (-info.size % tarfile.BLOCKSIZE))


def _deflated(raw: BinaryIO, zipped: zipfile.ZipInfo) -> Iterator[bytes]:
    """The deflate stream of a zip member as it is stored (PKWARE APPNOTE 6.3, section 4.3.7)."""
    raw.seek(zipped.header_offset)
    header = raw.read(30)
    signature, name_size, extra_size = struct.unpack("<4s22xHH", header)
    if signature != b"PK\x03\x04":
        raise zipfile.BadZipFile("no local file header")
    raw.seek(name_size + extra_size, 1)
    left = zipped.compress_size
    while left > 0:
        chunk = raw.read(min(left, _CHUNK))
        if not chunk:
            raise EOFError("the file ends early")
        left -= len(chunk)
        yield chunk


class _Blob:
    """Writes a gzip file of several members, and hashes both what goes in and what comes out."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._outer, self._inner = hashlib.sha256(), hashlib.sha256()
        self._size = 0
        self._begin()

    def _begin(self) -> None:
        self._deflate = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._crc, self._length = 0, 0

    def _put(self, data: bytes) -> None:
        self._outer.update(data)
        self._size += len(data)
        self._file.write(data)

    def write(self, data: bytes) -> None:
        if not data:
            return
        if not self._length:
            self._put(_GZIP_HEADER)
        self._inner.update(data)
        self._crc = zlib.crc32(data, self._crc)
        self._length += len(data)
        self._put(self._deflate.compress(data))

    def _end(self) -> None:
        if self._length:
            self._put(self._deflate.flush() + struct.pack("<II", self._crc, self._length & 0xFFFFFFFF))
        self._begin()

    def splice(self, deflated: Iterable[bytes], size: int, crc: int, plain: hashlib._Hash) -> None:
        """Take over a deflate stream as a member; it must inflate to `size` bytes with checksum `crc`."""
        self._end()
        self._put(_GZIP_HEADER)
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        seen_size, seen_crc = 0, 0
        for chunk in deflated:
            self._put(chunk)
            rest = chunk
            while rest:
                data = inflate.decompress(rest, _CHUNK)
                rest = inflate.unconsumed_tail
                seen_size += len(data)
                if seen_size > size or inflate.unused_data:
                    raise zipfile.BadZipFile("more data than the directory says")
                seen_crc = zlib.crc32(data, seen_crc)
                self._inner.update(data)
                plain.update(data)
        if not inflate.eof or seen_size != size or seen_crc != crc:
            raise zipfile.BadZipFile("length or checksum differs from the directory")
        self._put(struct.pack("<II", crc, size & 0xFFFFFFFF))

    def finish(self) -> tuple[Descriptor, str]:
        self._end()
        digest = "sha256:" + self._outer.hexdigest()
        descriptor = Descriptor(media_type=LAYER_GZIP, digest=digest, size=self._size)
        return descriptor, "sha256:" + self._inner.hexdigest()


def layer_key(kind: str, *parts: Any) -> str:
    """A name for a layer by all that its bytes depend on."""
    return hashlib.sha256(canonical_json([FORMAT, GZIP_LEVEL, zlib.ZLIB_RUNTIME_VERSION, kind, *parts])).hexdigest()


@dataclass(frozen=True, slots=True)
class LayerCache:
    """Finished layers under their keys: ``<key>.tar.gz`` and ``<key>.json``. May be deleted at any time."""

    path: Path

    def get(self, key: str) -> Layer | None:
        """The layer of that key, when it is here and whole."""
        file = self.path / f"{key}.tar.gz"
        try:
            value = json.loads((self.path / f"{key}.json").read_bytes())
            digest, size, diff_id = value["digest"], value["size"], value["diff_id"]
            if file.stat().st_size != size or not is_digest(digest) or not is_digest(diff_id):
                return None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        with contextlib.suppress(OSError):
            os.utime(file)  # used now: see `prune`
        return Layer(descriptor=Descriptor(media_type=LAYER_GZIP, digest=digest, size=size), diff_id=diff_id, file=file)

    def make(self, key: str, entries: Callable[[], Iterable[Entry]]) -> tuple[Layer, bool]:
        """The layer of that key, written from `entries` when it is not here; and whether it was here."""
        if (cached := self.get(key)) is not None:
            return cached, True
        file = self.path / f"{key}.tar.gz"
        with atomic_file(file) as out:
            descriptor, diff_id = write_layer(out, entries())
        value = {"digest": descriptor.digest, "size": descriptor.size, "diff_id": diff_id}
        write_atomic(self.path / f"{key}.json", canonical_json(value))
        return Layer(descriptor=descriptor, diff_id=diff_id, file=file), False

    def prune(self, unused_s: float = UNUSED_S) -> None:
        """Remove the layers that no build used for so many seconds; a later build makes them again."""
        oldest = time.time() - unused_s
        with contextlib.suppress(OSError):
            for file in self.path.iterdir():
                layer = self.path / f"{file.name.partition('.')[0]}.tar.gz"
                used = layer if layer.exists() else file
                if used.stat().st_mtime < oldest:
                    file.unlink(missing_ok=True)

    def remembered(self, key: str) -> dict[str, str]:
        """The keys of layers that were made together under `key`; empty when they are not known."""
        try:
            value = json.loads((self.path / f"{key}.plan.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return {str(name): str(item) for name, item in value.items()} if isinstance(value, dict) else {}

    def remember(self, key: str, keys: dict[str, str]) -> None:
        """Note, in order, the keys of layers that were made together."""
        write_atomic(self.path / f"{key}.plan.json", json.dumps(keys).encode())


def store_layer(layout: OciLayout, layer: Layer) -> None:
    """Put a layer's blob into an image layout."""
    layout.add_file(layer.file, layer.descriptor)
