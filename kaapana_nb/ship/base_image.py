"""The base image of processing containers, made from this machine's own Python where no registry has one.

What ``docker/base-python-cpu/Dockerfile`` takes from a public registry is put together here from files:
the interpreter and its standard library (moved to /opt/python), the shared libraries that they and
common wheels need, a shell, an account with uid 1000. No root, no network, no container engine.
"""

from __future__ import annotations

import platform
import shutil
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kaapana_nb.clients.layout import OciLayout
from kaapana_nb.clients.oci import CONFIG, ImageConfig, Manifest
from kaapana_nb.errors import BuildError
from kaapana_nb.ship.layers import Entry, LayerCache, layer_key, store_layer
from kaapana_nb.ship.wheels import LABEL_GLIBC, LABEL_PYTHON

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kaapana_nb.settings import Settings

NAME = "local-only/base-python-cpu"
PREFIX = "/opt/python"
EPOCH = "1970-01-01T00:00:00Z"
_RECIPE_LABEL = "io.kaapana-nb.recipe"
_RECIPE = 4  # raise it when the base's content changes

_BUSYBOX = (
    "sh", "ash", "ls", "cat", "cp", "mv", "rm", "mkdir", "rmdir", "ln", "chmod", "chown", "env", "echo", "printf",
    "test", "true", "false", "sleep", "find", "grep", "sed", "awk", "head", "tail", "wc", "sort", "uniq", "tr", "cut",
    "tar", "gzip", "gunzip", "date", "id", "ps", "kill", "pwd", "basename", "dirname", "touch", "stat", "du", "df",
    "which", "xargs", "tee", "uname", "whoami", "sha256sum", "wget", "vi", "less",
)  # fmt: skip
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nkaapana:x:1000:1000:kaapana:/home/kaapana:/bin/sh\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    "etc/group": "root:x:0:\nkaapana:x:1000:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "etc/os-release": 'ID=kaapana-nb-base\nNAME="kaapana-nb base"\nPRETTY_NAME="kaapana-nb base image"\n',
    "etc/pip.conf": "",
    # Container engines mount their own over these, and would add them to the first layer that they build.
    "etc/hosts": "",
    "etc/hostname": "",
    "etc/resolv.conf": "",
}
_DIRECTORIES = {
    "tmp": 0o1777, "var/tmp": 0o1777, "root": 0o700, "proc": 0o755, "sys": 0o755, "dev": 0o755, "run": 0o755,
    "mnt": 0o755, "usr/sbin": 0o755, "var": 0o755, "home": 0o755,
}  # fmt: skip


def base_layout_path(settings: Settings, tag: str = "latest") -> Path:
    """Where the local base image lies."""
    return settings.images_dir / NAME / tag


def ensure_base_image(settings: Settings, *, tag: str = "latest", log: Callable[[str], None] | None = None) -> Path:
    """Make the base image unless the right one is there; give the path of its OCI layout.

    It is made again when this machine's Python, C library or the recipe changed. An image that did not
    come from here is the user's own and stays.

    Raises
    ------
    BuildError
        When the machine lacks what the image is made of (it is not Linux with glibc).
    """
    path = base_layout_path(settings, tag)
    key = _machine_key()
    if OciLayout.is_layout(path) and OciLayout(path).image().config.labels.get(_RECIPE_LABEL, key) == key:
        return path
    if log is not None:
        log(f"making the base image {NAME}:{tag} from Python {platform.python_version()} of this machine")
    cache = LayerCache(settings.images_dir / ".layers")
    layer, _ = cache.make(layer_key("base", key), lambda: list(_entries()))
    config = ImageConfig(
        architecture=architecture(),
        created=EPOCH,
        env=(
            f"PATH={PREFIX}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG=C.UTF-8",
            "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt",
            f"PYTHON_VERSION={platform.python_version()}",
        ),
        cmd=("python3",),
        labels={
            "IMAGE": NAME.rpartition("/")[2],
            "VERSION": "0.1.0",
            "REGISTRY": "local-only",
            LABEL_PYTHON: platform.python_version(),
            LABEL_GLIBC: _glibc(),
            _RECIPE_LABEL: key,
        },
        diff_ids=(layer.diff_id,),
        history=({"created": EPOCH, "created_by": "kaapana-nb base image from this machine's Python"},),
    )
    layout = OciLayout.create(path)
    with layout.locked():
        store_layer(layout, layer)
        descriptor = layout.add(config.to_bytes(), CONFIG)
        layout.set_image(Manifest(config=descriptor, layers=(layer.descriptor,)), tag)
    return path


def _machine_key() -> str:
    parts = [_RECIPE, sys.version, _glibc(), ssl.OPENSSL_VERSION, platform.machine(), str(_busybox())]
    return layer_key("base-recipe", *parts)[:16]


def architecture() -> str:
    """This machine's processor as OCI names it."""
    names = {"x86_64": "amd64", "aarch64": "arm64"}
    if sys.platform != "linux" or platform.machine() not in names:
        raise BuildError(
            f"This machine is {sys.platform} on {platform.machine()}; Linux on x86_64 or aarch64 was expected.",
            "Name a base image with --base.",
        )
    return names[platform.machine()]


def _glibc() -> str:
    name, version = platform.libc_ver()
    if name != "glibc":
        raise BuildError(
            f"This machine's C library is {name or 'unknown'}; glibc was expected, which Python's wheels need.",
            "Name a base image with --base.",
        )
    return version


def _busybox() -> Path | None:
    """A static busybox, which needs nothing beside itself."""
    found = shutil.which("busybox")
    return Path(found) if found and b"ld-linux" not in Path(found).read_bytes()[:4096] else None


def _entries() -> Iterator[Entry]:
    from kaapana_nb.ship.machine_python import interpreter_entries, library_entries, moved

    files = [*interpreter_entries(PREFIX), *_shell()]
    files += library_entries(files)
    files += [Entry(path=path, content=text.encode()) for path, text in _FILES.items()]
    parents = {str(parent) for entry in files for parent in Path(entry.path).parents} - {"."}
    yield from (Entry(path=path, mode=0o755) for path in sorted(parents))
    yield from (Entry(path=path, mode=mode) for path, mode in _DIRECTORIES.items())
    yield Entry(path="home/kaapana", mode=0o755, uid=1000, gid=1000)
    for name in ("bin", "sbin", "lib", "lib64"):
        yield Entry(path=f"usr/{name}", mode=0o755)
        yield Entry(path=name, link=f"usr/{name}")
    yield from (moved(entry, PREFIX) for entry in files)


def _shell() -> Iterator[Entry]:
    """A shell and the small tools that entry points use: busybox where it is static, else this machine's own."""
    busybox = _busybox()
    if busybox is not None:
        yield Entry(path="usr/bin/busybox", mode=0o755, content=busybox)
        yield from (Entry(path=f"usr/bin/{name}", link="busybox") for name in _BUSYBOX)
        return
    for name in _BUSYBOX:
        if found := shutil.which(name):
            yield Entry(path=f"usr/bin/{name}", mode=0o755, content=Path(found).resolve())
