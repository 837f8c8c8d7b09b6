"""Documents attached to an image in its registry: manifests with a subject, found as its referrers.

Source: OCI distribution specification 1.1, "Pushing Manifests with Subject", "Listing Referrers" and, for
registries of before, "Unavailable Referrers API" (an index under a tag made of the subject's digest).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kaapana_nb.clients.oci import EMPTY, INDEX, Descriptor, Manifest, canonical_json, parse_document

if TYPE_CHECKING:
    from kaapana_nb.clients.registry import RegistryClient

_EMPTY = b"{}"
_MAX_REFERRERS = 500


def attach(client: RegistryClient, repository: str, subject: Descriptor, data: bytes, media_type: str) -> int:
    """Attach `data` to the image `subject`; the same document twice is attached once. Gives the bytes sent.

    Raises
    ------
    RegistryError
        When the registry refuses.
    """
    config, document = Descriptor.of(_EMPTY, EMPTY), Descriptor.of(data, media_type)
    sent = client.upload_blob(repository, config, _EMPTY).bytes_sent
    sent += client.upload_blob(repository, document, data).bytes_sent
    plain = Descriptor(media_type=subject.media_type, digest=subject.digest, size=subject.size)
    manifest = Manifest(config=config, layers=(document,), artifact_type=media_type, subject=plain)
    content, descriptor = manifest.to_bytes(), manifest.descriptor
    if client.digest_of(repository, descriptor.digest) is None:
        client.put_manifest(repository, descriptor.digest, content, descriptor.media_type)
        sent += len(content)
    if not client.lists_referrers(repository, subject.digest):
        sent += _list_by_tag(client, repository, subject.digest, descriptor, media_type)
    return sent


def referrers(client: RegistryClient, repository: str, digest: str) -> list[Descriptor]:
    """What is attached to an image."""
    if client.lists_referrers(repository, digest):
        index = client.referrers_index(repository, digest)
    else:
        index = _tagged_index(client, repository, digest)
    return [Descriptor.from_json(entry) for entry in index.get("manifests") or []]


def _tag(digest: str) -> str:
    return digest.replace(":", "-")


def _tagged_index(client: RegistryClient, repository: str, digest: str) -> dict[str, Any]:
    if client.digest_of(repository, _tag(digest)) is None:
        return {}
    _, data = client.manifest(repository, _tag(digest))
    return parse_document(data, f"list of referrers of {digest}")


def _list_by_tag(client: RegistryClient, repository: str, digest: str, descriptor: Descriptor, kind: str) -> int:
    index = _tagged_index(client, repository, digest)
    entries = [Descriptor.from_json(entry) for entry in (index.get("manifests") or [])[:_MAX_REFERRERS]]
    if any(entry.digest == descriptor.digest for entry in entries):
        return 0
    own = {**descriptor.to_json(), "artifactType": kind}
    document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [*(e.to_json() for e in entries), own]}
    data = canonical_json(document)
    client.put_manifest(repository, _tag(digest), data, INDEX)
    return len(data)


def read_document(client: RegistryClient, repository: str, referrer: Descriptor) -> Any:
    """The JSON document of a referrer."""
    _, data = client.manifest(repository, referrer.digest)
    return json.loads(client.read_blob(repository, Manifest.parse(data).layers[0]))
