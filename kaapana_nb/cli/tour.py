"""``kaapana-nb tour``: the main job end to end on the sample batch, without a browser."""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kaapana_nb.errors import PlatformError, RegistryError
from kaapana_nb.files import write_atomic
from kaapana_nb.settings import Settings

if TYPE_CHECKING:
    from kaapana_nb.ship.ship import Destination, StepLog

NOTEBOOK = "otsus_method.ipynb"
_EPILOG = """\
example:
  kaapana-nb tour

Steps: the sample batch, Otsu's method over it, export, build, verify, push to a registry on this machine, and what
skopeo says of the pushed image. What is not installed is said, and gone round: without docker-registry the image goes
to an archive, without podman the container is run as a process. --keep leaves the registry up until Ctrl-C.
"""


def register(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "tour",
        help="the main job end to end on the sample batch",
        description="The main job end to end, in numbered steps with their times and what came out.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--keep", action="store_true", help="leave the registry up until Ctrl-C")
    parser.set_defaults(handler=handle)


def handle(args: argparse.Namespace) -> int:
    from kaapana_nb.cli.steps import Steps
    from kaapana_nb.contract.profiles import profile
    from kaapana_nb.data.batch import Batch
    from kaapana_nb.devserver.tutorials import shipped_notebooks
    from kaapana_nb.emulator.sample import ensure_sample
    from kaapana_nb.ship.base_image import ensure_base_image
    from kaapana_nb.ship.ship import ship_notebook

    settings = Settings.from_environ()
    steps = Steps(sys.stdout)
    notebook = shipped_notebooks() / NOTEBOOK
    with steps("a batch in the platform's layout") as log:
        run = ensure_sample(settings, log=log)
        _log_lines(log, _command("batch", "ls", str(run)))
    with steps(f"{NOTEBOOK} over the batch") as log:
        _log_lines(log, _command("run", str(notebook), "--batch", str(run)))
    with contextlib.ExitStack() as stack:
        with steps("a registry on this machine") as log:
            ensure_base_image(settings, log=log)
            destination = stack.enter_context(_destination(settings, log))
        directory = settings.workspace / "tour"
        shipped = ship_notebook(
            notebook,
            Batch.open(run),
            directory,
            destination,
            profile=profile(),
            settings=settings,
            step=steps,
            force=True,
        )
        if shipped.image.reference.digest and destination.client is not None:
            with steps("what skopeo says") as log:
                _cross_check(settings, str(shipped.image.reference), shipped.image.digest, log)
        print("Done.")
        print(f"  results   {run / 'batch'}/<series>/otsus-method/<series>.nrrd")
        print(f"  report    {run / 'otsus-method' / NOTEBOOK}")
        print(f"  export    {directory}")
        print(f"  image     {shipped.archive or shipped.image.reference}")
        if destination.client is not None:
            if args.keep:
                _wait(settings, shipped.image.reference.registry)
            else:
                print("            (that registry ends with the tour; `kaapana-nb tour --keep` leaves it up)")
    return 0


def _log_lines(log: StepLog, text: str) -> None:
    for line in text.splitlines():
        log(line)


def _command(*words: str) -> str:
    """Run one of our commands as a user would, and return what it prints; its progress goes to stderr."""
    command = [sys.executable, "-m", "kaapana_nb", *words]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode != 0:
        sys.stdout.write(result.stdout)
        raise PlatformError(
            f"kaapana-nb {words[0]} ended with exit code {result.returncode}.",
            f"Run it by itself: kaapana-nb {' '.join(words)}",
        )
    return result.stdout


@contextlib.contextmanager
def _destination(settings: Settings, log: StepLog) -> Iterator[Destination]:
    """A registry on this machine, or an archive where there is none."""
    from kaapana_nb.emulator.registry import LocalRegistry
    from kaapana_nb.reference import ImageReference
    from kaapana_nb.ship.build import registry_client
    from kaapana_nb.ship.ship import Destination

    if shutil.which("docker-registry") is None:
        log("docker-registry is not installed: the image goes to an archive (apt-get install docker-registry)")
        yield Destination(archive=settings.workspace / "tour" / "otsus-method.tar")
        return
    with LocalRegistry(settings.registry_dir) as registry:
        log(f"docker-registry at {registry.host}, with a random password")
        login = registry.credentials
        token = base64.b64encode(f"{login.username}:{login.password}".encode()).decode()
        auth_file = _auth_file(settings)
        write_atomic(auth_file, json.dumps({"auths": {registry.host: {"auth": token}}}).encode(), mode=0o600)
        reference = ImageReference(registry=registry.host, repository="tour/otsus-method", tag="0.1.0")
        client = registry_client(registry.host, reference.repository, credentials=login)
        try:
            yield Destination(reference=reference, client=client)
        finally:
            client.close()
            auth_file.unlink(missing_ok=True)


def _auth_file(settings: Settings) -> Path:
    """The local registry's password in Docker's form, for skopeo and for ``--keep``; removed at the end."""
    return settings.registry_dir / "auth.json"


def _cross_check(settings: Settings, reference: str, digest: str, log: StepLog) -> None:
    """Ask a tool that is not ours what was pushed."""
    skopeo = shutil.which("skopeo")
    if skopeo is None:
        log("skopeo is not installed: the digest is as the registry confirmed it (apt-get install skopeo)")
        return
    name = reference.partition("@")[0]
    authfile = str(_auth_file(settings))
    command = [skopeo, "inspect", "--tls-verify=false", "--authfile", authfile, f"docker://{name}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if result.returncode != 0:
        raise RegistryError(f"skopeo cannot inspect {name}: {result.stderr.strip()[-300:]}", "Run the tour again.")
    found = json.loads(result.stdout)
    log(f"{found['Digest']} {found['Labels'].get('IMAGE')} {found['Labels'].get('VERSION')}")
    if found["Digest"] != digest:
        raise RegistryError(
            f"skopeo says {found['Digest']}, the push said {digest}.", "Tell the project: this must not happen."
        )


def _wait(settings: Settings, host: str) -> None:
    print(f"\nThe registry stays up at {host}; credentials are in {_auth_file(settings)}.")
    print("Ctrl-C ends it.", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()
