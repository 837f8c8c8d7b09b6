"""The builder for machines with Docker: its command line, with the daemon that it finds.

Docker takes any Dockerfile. It has no mounts for builds, so that a pip line uses the network as the
Dockerfile says; exported containers are better off with the layers builder.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from kaapana_nb.clients.archives import pack_layout
from kaapana_nb.clients.layout import OciLayout
from kaapana_nb.clients.oci import CONFIG, Descriptor, ImageConfig, Manifest
from kaapana_nb.clients.supervise import supervise
from kaapana_nb.errors import BuildError
from kaapana_nb.files import atomic_file
from kaapana_nb.ship.bases import complete_base
from kaapana_nb.ship.builders import BuildRequest, base_labels, image_annotations
from kaapana_nb.ship.layers import compress_tar


class DockerBuilder:
    """``docker build`` and ``docker save``; see the module."""

    name = "docker"

    def unusable(self) -> str:
        """Why docker cannot build here: the program or its daemon is missing."""
        if shutil.which("docker") is None:
            return "docker is not installed"
        done = _docker("version", "--format", "{{.Server.Version}}")
        return "" if done.returncode == 0 else "the docker daemon does not answer"

    def build(self, request: BuildRequest) -> Manifest:
        """Build with the daemon, and take its layers over."""
        base_path = complete_base(request.base, request.settings, request.client, request.log)
        name = f"kaapana-nb-build-{secrets.token_hex(6)}"
        with tempfile.TemporaryDirectory(prefix="kaapana-nb-") as directory:
            archive = Path(directory) / "image.tar"
            reference = request.dockerfile.base
            tag = reference.tag or "latest"
            pack_layout(OciLayout(base_path), str(reference.with_tag(tag)), tag, archive)
            _checked("load the base image", "load", "--input", str(archive))
            labels = [word for key, value in base_labels(request).items() for word in ("--label", f"{key}={value}")]
            words = ["docker", "build", "--tag", name, *labels, str(request.context.absolute())]
            try:
                ended = supervise(words, environ=os.environ, log=request.log)
                if ended.exit_code != 0:
                    raise BuildError(
                        f"docker build ended with exit code {ended.exit_code}: {_last(ended.tail)}.",
                        "The line above it in the log names the Dockerfile's step that failed.",
                    )
                _checked("write the image out", "save", "--output", str(archive), name)
            finally:
                _docker("rmi", "--force", name)
            return _taken_over(archive, request)


def _taken_over(archive: Path, request: BuildRequest) -> Manifest:
    """The image of a `docker save` file, its own layers compressed as ours are, the base's replaced by the base's."""
    with tarfile.open(archive) as tar:
        try:
            document = json.loads(_read(tar, "manifest.json"))[0]
            data = _read(tar, document["Config"])
            paths = [str(path) for path in document["Layers"]]
        except (KeyError, ValueError, IndexError, TypeError) as error:
            raise BuildError(f"docker save wrote no usable manifest.json: {error}.", "Use another builder.") from error
        config = ImageConfig.parse(data)
        base = request.base.image
        count = len(base.config.diff_ids)
        same = config.diff_ids[:count] == base.config.diff_ids
        layers = list(base.manifest.layers) if same else []
        if same and request.base.layout is not None:
            for layer in layers:
                request.layout.copy_from(request.base.layout, layer)
        for path, diff_id in list(zip(paths, config.diff_ids, strict=True))[len(layers) :]:
            layers.append(_layer(tar, path, diff_id, request.layout))
    stored = request.layout.add(data, CONFIG)
    annotations = image_annotations(request) if same else {}
    return Manifest(config=stored, layers=tuple(layers), annotations=annotations)


def _layer(tar: tarfile.TarFile, path: str, diff_id: str, layout: OciLayout) -> Descriptor:
    member = tar.extractfile(path)
    if member is None:
        raise BuildError(f"docker save wrote no layer {path!r:.120}.", "Use another builder.")
    with tempfile.TemporaryDirectory(prefix=".layer-", dir=layout.path) as directory:
        file = Path(directory) / "layer"
        with member, atomic_file(file) as out:
            descriptor, seen = compress_tar(out, member)
        if seen != diff_id:
            raise BuildError(f"Layer {path!r:.120} of docker save is not what its image says.", "Build again.")
        layout.add_file(file, descriptor)
    return descriptor


def _read(tar: tarfile.TarFile, path: str) -> bytes:
    member = tar.extractfile(path)
    if member is None:
        raise KeyError(path)
    with member:
        return member.read(4 << 20)


def _docker(*words: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["docker", *words], capture_output=True, text=True, check=False, timeout=600)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"docker {words[0]} did not work: {error}.", "Leave --builder out.") from error


def _checked(what: str, *words: str) -> None:
    done = _docker(*words)
    if done.returncode != 0:
        raise BuildError(f"docker could not {what}: {_last(done.stderr)}.", "Leave --builder out.")


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-3:])[-400:] or "no message"
