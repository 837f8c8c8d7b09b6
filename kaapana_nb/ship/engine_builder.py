"""Builders that run a Dockerfile's lines: buildah and podman, with storage of our own and chroot isolation.

They take any Dockerfile, and need root or user namespaces. An exported container's wheels are mounted
into the pip line from a directory of this machine, so that it needs neither a network nor an index.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from kaapana_nb.clients.layout import Image, OciLayout
from kaapana_nb.clients.oci import CONFIG, Manifest
from kaapana_nb.clients.podman import engine_environ
from kaapana_nb.clients.supervise import supervise
from kaapana_nb.errors import BuildError
from kaapana_nb.ship.bases import complete_base
from kaapana_nb.ship.builders import BuildRequest, base_labels, image_annotations

if TYPE_CHECKING:
    from collections.abc import Sequence

_WHEELS_MOUNT = "/mnt"
"""Where the wheels are during the build: a directory that every base has, so that nothing stays of it."""

_PIP_CONF = f"[global]\nno-index = true\nfind-links = {_WHEELS_MOUNT}\ndisable-pip-version-check = true\n"
_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")


class EngineBuilder:
    """``buildah build`` or ``podman build``; see the module."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self._directory = directory

    def unusable(self) -> str:
        """Why the engine cannot build here, found out by making an empty container."""
        if shutil.which(self.name) is None:
            return f"{self.name} is not installed"
        probe = f"kaapana-nb-probe-{secrets.token_hex(4)}"
        program = "buildah" if shutil.which("buildah") else ""
        if not program:
            return ""
        done = self._run([program, "from", "--name", probe, "scratch"])
        self._run([program, "rm", probe])
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return "" if done.returncode == 0 else f"it needs root or user namespaces ({last[:160]})"

    def build(self, request: BuildRequest) -> Manifest:
        """Build with the engine, and take its layers over."""
        base_path = complete_base(request.base, request.settings, request.client, request.log)
        base = self._checked(["pull", "--quiet", f"oci:{base_path}"], "load the base image").strip().splitlines()[-1]
        with tempfile.TemporaryDirectory(prefix="kaapana-nb-") as name:
            scratch = Path(name)
            pip_conf, identity = scratch / "pip.conf", scratch / "id"
            pip_conf.write_text(_PIP_CONF)
            words = [
                self.name, "build", "--isolation", "chroot", "--layers", "--force-rm", "--timestamp", "0",
                "--pull=never", "--identity-label=false", "--from", base, "--format", "oci", "--iidfile", str(identity),
                *(word for name, value in base_labels(request).items() for word in ("--label", f"{name}={value}")),
                *self._volumes(request, pip_conf), str(request.context.absolute()),
            ]  # fmt: skip
            ended = supervise(words, environ=self._environ(), cwd=self._directory, log=request.log)
            if ended.exit_code != 0:
                raise BuildError(
                    f"{self.name} build ended with exit code {ended.exit_code}: {_last(ended.tail)}.",
                    "The line above it in the log names the Dockerfile's step that failed.",
                )
            out = scratch / "layout"
            built = identity.read_text().strip().removeprefix("sha256:")
            self._checked(["push", "--quiet", built, f"oci:{out}:built"], "write the image out")
            return self._taken_over(OciLayout(out), request)

    def _volumes(self, request: BuildRequest, pip_conf: Path) -> list[str]:
        """Mounts of the build: wheels for a Dockerfile that we know, certificates for one that we do not."""
        if request.dockerfile.refusal is not None:
            return ["--volume", f"{_AUTHORITIES}:{_AUTHORITIES}:ro"] if _AUTHORITIES.is_file() else []
        if not request.wheels:
            return []
        wheels = (request.wheelhouse or request.settings.wheels_dir).absolute()
        wheels.mkdir(parents=True, exist_ok=True)
        return ["--volume", f"{pip_conf}:/etc/pip.conf:ro", "--volume", f"{wheels}:{_WHEELS_MOUNT}:ro"]

    def _taken_over(self, out: OciLayout, request: BuildRequest) -> Manifest:
        """The engine's image with the base's own layers in place of the engine's copies of them."""
        built = out.image()
        base = request.base.image
        count = len(base.config.diff_ids)
        if built.config.diff_ids[:count] != base.config.diff_ids:
            return _copied(built, out, request)
        layers = (*base.manifest.layers, *built.manifest.layers[count:])
        if request.base.layout is not None:
            for layer in base.manifest.layers:
                request.layout.copy_from(request.base.layout, layer)
        for layer in built.manifest.layers[count:]:
            request.layout.copy_from(out, layer)
        config = request.layout.add(out.read(built.manifest.config), CONFIG)
        return Manifest(config=config, layers=layers, annotations=image_annotations(request))

    def _checked(self, words: Sequence[str], what: str) -> str:
        done = self._run([self.name, *words])
        if done.returncode != 0:
            raise BuildError(
                f"{self.name} could not {what}: {_last(done.stderr)}.",
                "Run `kaapana-nb doctor`, or leave --builder out.",
            )
        return done.stdout

    def _run(self, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                words,
                env=self._environ(),
                cwd=self._directory,
                capture_output=True,
                text=True,
                check=False,
                timeout=600,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BuildError(f"{words[0]} {words[1]} did not work: {error}.", "Run `kaapana-nb doctor`.") from error

    def _environ(self) -> dict[str, str]:
        return {**engine_environ(self._directory), "BUILDAH_ISOLATION": "chroot"}


def _copied(built: Image, out: OciLayout, request: BuildRequest) -> Manifest:
    for layer in built.manifest.layers:
        request.layout.copy_from(out, layer)
    config = request.layout.add(out.read(built.manifest.config), CONFIG)
    return Manifest(config=config, layers=built.manifest.layers)


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-3:])[-400:] or "no message"
