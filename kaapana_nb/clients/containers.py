"""Running a processing container: what a runner promises, and which one this machine can offer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol

from kaapana_nb.errors import UsageError

if TYPE_CHECKING:
    from kaapana_nb.settings import Settings

Log = Callable[[str], None]
TAIL_LINES = 200
DEFAULT_USER = "1000:1000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A directory of this machine inside a container."""

    source: Path
    target: str
    read_only: bool = False

    def __post_init__(self) -> None:
        path = PurePosixPath(self.target)
        if not path.is_absolute() or ".." in path.parts or {",", ":"} & set(self.target + str(self.source)):
            raise UsageError(
                f"{self.source} on {self.target!r} is no mount; an absolute path without commas and colons was "
                "expected.",
                "Rename the directory.",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerResult:
    """How a container ended; `output_tail` holds its last lines, standard output and error as they came."""

    exit_code: int
    oom_killed: bool = False
    timed_out: bool = False
    seconds: float
    output_tail: str


class ContainerRunner(Protocol):
    """Runs an image's command once. To add a runner: write this class and let `find_runner` try it."""

    name: str
    isolated: bool

    def run(
        self,
        image_layout: Path,
        *,
        environ: Mapping[str, str],
        mounts: Sequence[Mount] = (),
        command: Sequence[str] | None = None,
        memory_mib: int | None = None,
        user: str = DEFAULT_USER,
        read_only: bool = True,
        network: bool = False,
        timeout_s: float | None = None,
        log: Log = lambda _: None,
    ) -> ContainerResult:
        """Run the image in `image_layout` and wait for its end.

        Parameters
        ----------
        environ
            Variables beside the image's own.
        command
            Instead of the image's.
        memory_mib
            Hard limit; beyond it the container is killed (``oom_killed``).
        log
            Gets each line of output as it comes.

        Raises
        ------
        PlatformError
            When the container could not be started. Its own failure is a result, not an error.
        """


def find_runner(settings: Settings, log: Log = lambda _: None, *, name: str = "auto") -> ContainerRunner:
    """Podman where it really runs containers, else this machine's Python as a plain process.

    Parameters
    ----------
    name
        ``auto``, ``podman`` or ``process``.

    Raises
    ------
    UsageError
        When a runner was asked for by name that this machine does not have.
    """
    from kaapana_nb.clients.podman import PodmanRunner
    from kaapana_nb.clients.process_runner import ProcessRunner

    if name not in {"auto", "podman", "process"}:
        raise UsageError(f"There is no container runner {name!r:.60}.", "Choose one of auto, podman, process.")
    if name != "process":
        podman = PodmanRunner(settings.containers_dir)
        reason = podman.unusable()
        if not reason:
            return podman
        if name == "podman":
            raise UsageError(f"podman cannot run containers here: {reason}.", "Use the process runner.")
        log(f"podman cannot run containers here ({reason}); the process runner is used: no isolation, "
            "no memory limit, this machine's Python")  # fmt: skip
    return ProcessRunner(settings.containers_dir / "unpacked")
