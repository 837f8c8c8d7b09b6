"""Uploading a blob in chunks, going on where the registry says it stopped.

Source: OCI distribution specification 1.1, "Pushing a blob in chunks".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import httpx

from kaapana_nb.clients.registry_http import AGAIN, RETRIES, Call, Wire, pause_s

if TYPE_CHECKING:
    from pathlib import Path

    from kaapana_nb.clients.oci import Descriptor
    from kaapana_nb.clients.registry_errors import Answer

_LOST = frozenset({404, 416})  # the registry does not know the upload, or not at that place


def transfer(
    wire: Wire, location: str, descriptor: Descriptor, source: Path | bytes, *, chunk: int, what: str, scope: str
) -> tuple[bool, int]:
    """Send a blob to an open upload.

    Returns
    -------
    finished
        ``False`` when the registry lost the upload: it must be begun anew.
    sent
        Bytes that went over the wire, those sent twice included.

    Raises
    ------
    RegistryError
        When the registry refuses, or still fails after the retries.
    """
    offset, sent, failures = 0, 0, 0
    while True:
        data = _read(source, offset, chunk)
        last = offset + len(data) >= descriptor.size
        answer: Answer | None = None
        sent += len(data)
        try:
            answer = wire.once(_call(location, data, offset, descriptor, last=last, what=what, scope=scope))
        except httpx.TransportError as error:
            if failures == RETRIES:
                raise wire.broken(error, what) from error
        if answer is not None and answer.status == 201 and last:
            seen = answer.headers.get("docker-content-digest", descriptor.digest)
            if seen != descriptor.digest:
                raise wire.corrupt(what, descriptor.digest, seen)
            return True, sent
        if answer is not None and answer.status == 202 and not last:
            offset += len(data)
            location = wire.location(answer)
            continue
        if answer is not None and (answer.is_disk_full or answer.status not in AGAIN | _LOST or failures == RETRIES):
            raise wire.refused(answer, what)
        wire.sleep(pause_s(failures))
        failures += 1
        state = wire.send("GET", location, what, scope=scope)
        arrived = re.fullmatch(r"(?:bytes=)?0-([0-9]{1,15})", state.headers.get("range", ""))
        if state.status != 204 or arrived is None or int(arrived[1]) >= descriptor.size:
            return False, sent
        offset = int(arrived[1]) + 1 if int(arrived[1]) else 0  # an empty upload says 0-0 as well
        location = wire.location(state)


def _call(
    location: str, data: bytes, offset: int, descriptor: Descriptor, *, last: bool, what: str, scope: str
) -> Call:
    headers = {"Content-Type": "application/octet-stream"}
    if last:
        location += ("&" if "?" in location else "?") + f"digest={descriptor.digest}"
    else:
        headers["Content-Range"] = f"{offset}-{offset + len(data) - 1}"
    return Call(method="PUT" if last else "PATCH", url=location, what=what, scope=scope, headers=headers, content=data)


def _read(source: Path | bytes, offset: int, size: int) -> bytes:
    if isinstance(source, bytes):
        return source[offset : offset + size]
    with source.open("rb") as file:
        file.seek(offset)
        return file.read(size)
