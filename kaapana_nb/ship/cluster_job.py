"""A build as a job of the cluster: rootless BuildKit, for platforms that allow it and Dockerfiles with RUN lines.

The manifests take the place of the kaniko pod, whose project is archived. They hold the build context, name
a secret with the registry's credentials and contain none. Sources: Kubernetes' batch/v1 Job; BuildKit's
documentation of rootless mode and of its Dockerfile frontend's named contexts.
"""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kaapana_nb.contract.names import is_slug
from kaapana_nb.errors import BuildError, UsageError
from kaapana_nb.ship.dockerfile import read_dockerfile
from kaapana_nb.ship.layers import Entry, write_layer

if TYPE_CHECKING:
    from pathlib import Path

    from kaapana_nb.reference import ImageReference

BUILDKIT = "docker.io/moby/buildkit:rootless"
MAX_CONTEXT = 700 * 1024
"""Largest packed context, bytes: a ConfigMap holds 1 MiB, in which base64 takes a third."""

_USER = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterJob:
    """What a build job needs to know.

    Attributes
    ----------
    target
        Where the image goes, with registry and tag.
    base
        The base image in a registry that the cluster reaches, in place of the Dockerfile's FROM.
    secret
        Name of a ``kubernetes.io/dockerconfigjson`` secret in the namespace.
    plain_http
        The registry has no TLS.
    """

    target: ImageReference
    base: ImageReference
    secret: str
    namespace: str
    buildkit: str = BUILDKIT
    plain_http: bool = False

    def __post_init__(self) -> None:
        for what, value in (("secret", self.secret), ("namespace", self.namespace)):
            if not is_slug(value):
                raise UsageError(
                    f"{value!r:.80} is no name of a {what}; lower-case letters, digits and dashes were expected.",
                    f"Name a {what} of the cluster.",
                )
        if not (self.target.registry and self.target.tag and self.base.registry):
            raise UsageError(
                f"The job's target is {self.target} and its base {self.base}; both need a registry, the target a tag.",
                "Name them: --push REGISTRY --base REGISTRY/NAME:TAG.",
            )


def render_job(context: Path, job: ClusterJob) -> str:
    """The manifests, a ConfigMap with the context and a Job, as JSON for ``kubectl apply -f``.

    The same context gives the same text.

    Raises
    ------
    BuildError
        When the context does not fit into a ConfigMap.
    """
    dockerfile = read_dockerfile(context, lenient=True)
    packed = _pack(context)
    if len(packed) > MAX_CONTEXT:
        raise BuildError(
            f"The build context {context} has {len(packed)} bytes packed; at most {MAX_CONTEXT} fit into a job.",
            "Build with the layers builder, which needs no job; or make the context smaller.",
        )
    name = f"build-{job.target.name}"[:50].rstrip("-._").replace(".", "-").replace("_", "-")
    labels = {"app.kubernetes.io/name": "kaapana-nb-build", "app.kubernetes.io/instance": name}
    metadata = {"name": name, "namespace": job.namespace, "labels": labels}
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "binaryData": {"context.tar.gz": base64.b64encode(packed).decode()},
    }
    manifest = {"apiVersion": "v1", "kind": "List", "items": [config_map, _job(job, str(dockerfile.base), metadata)]}
    return json.dumps(manifest, indent=1) + "\n"


def _job(job: ClusterJob, from_line: str, metadata: dict[str, Any]) -> dict[str, Any]:
    insecure = ",registry.insecure=true" if job.plain_http else ""
    build = [
        "build", "--frontend", "dockerfile.v0", "--local", "context=/workspace", "--local", "dockerfile=/workspace",
        "--opt", f"context:{from_line}=docker-image://{job.base}",
        "--output", f"type=image,name={job.target},push=true,oci-mediatypes=true{insecure}",
    ]  # fmt: skip
    walls = {"runAsUser": _USER, "runAsGroup": _USER, "runAsNonRoot": True}
    unpack = {
        "name": "unpack",
        "image": job.buildkit,
        "command": ["tar", "-xzf", "/context/context.tar.gz", "-C", "/workspace"],
        "securityContext": {**walls, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
        "volumeMounts": [_mount("context", "/context", read_only=True), _mount("workspace", "/workspace")],
    }
    builder = {
        "name": "build",
        "image": job.buildkit,
        "command": ["buildctl-daemonless.sh"],
        "args": build,
        "env": [
            {"name": "BUILDKITD_FLAGS", "value": "--oci-worker-no-process-sandbox"},
            {"name": "DOCKER_CONFIG", "value": "/credentials"},
        ],
        # Rootless BuildKit makes a user namespace, for which it needs setuid newuidmap and these system calls.
        "securityContext": {**walls, "allowPrivilegeEscalation": True, "seccompProfile": {"type": "Unconfined"}},
        "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"memory": "4Gi"}},
        "volumeMounts": [
            _mount("workspace", "/workspace", read_only=True),
            _mount("state", "/home/user/.local/share/buildkit"),
            _mount("credentials", "/credentials", read_only=True),
        ],
    }
    items = [{"key": ".dockerconfigjson", "path": "config.json"}]
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {"fsGroup": _USER},
        "initContainers": [unpack],
        "containers": [builder],
        "volumes": [
            {"name": "context", "configMap": {"name": metadata["name"]}},
            {"name": "workspace", "emptyDir": {"sizeLimit": "64Mi"}},
            {"name": "state", "emptyDir": {"sizeLimit": "20Gi"}},
            {"name": "credentials", "secret": {"secretName": job.secret, "items": items}},
        ],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "backoffLimit": 1,
            "activeDeadlineSeconds": 3600,
            "ttlSecondsAfterFinished": 3600,
            "template": {"metadata": {"labels": metadata["labels"]}, "spec": pod},
        },
    }


def _mount(name: str, path: str, *, read_only: bool = False) -> dict[str, Any]:
    return {"name": name, "mountPath": path, **({"readOnly": True} if read_only else {})}


def _pack(context: Path) -> bytes:
    """The context as a tar file that depends on its files alone."""
    entries = []
    for path in sorted(context.rglob("*")):
        if path.is_symlink():
            raise BuildError(f"{path} is a symbolic link; a file was expected in a build context.",
                             "Replace the link by the file itself.")  # fmt: skip
        if path.is_file():
            entries.append(Entry(path=path.relative_to(context).as_posix(), content=path))
    file = io.BytesIO()
    write_layer(file, entries)
    return file.getvalue()
