"""The differences between Kaapana 0.1 and 0.6 as data, so that no code asks for a version."""

from __future__ import annotations

from dataclasses import dataclass

from kaapana_nb.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One generation of the platform.

    Attributes
    ----------
    name
        ``"0.1"`` or ``"0.6"``.
    run_dir
        Where a workflow run is mounted in an operator's container; ``{run_id}`` is filled in.
    workflow_dir
        The value of ``WORKFLOW_DIR``; scripts join ``"/" + WORKFLOW_DIR``.
    base_image
        What a processing container stands on.
    python
        Python of the platform's own base image.
    ignore_label
        Label that keeps the platform's build system from building the image.
    image_tag
        How the platform tags an image; ``{abbr}``, ``{platform_version}`` and ``{version}`` are filled in.
    skip_code
        Whether exit code 126 marks a task as skipped; elsewhere it is a failure.
    """

    name: str
    run_dir: str
    workflow_dir: str
    base_image: str
    python: str
    ignore_label: str
    image_tag: str
    platform_abbr: str
    skip_code: bool
    dev_server_port: int
    uid: int


PROFILES: dict[str, Profile] = {
    "0.6": Profile(
        name="0.6",
        run_dir="/kaapana/mounted/data/{run_id}",
        workflow_dir="/kaapana/mounted/data/{run_id}",
        base_image="local-only/base-python-cpu:latest",
        python="3.12",
        ignore_label="BUILD_IGNORE",
        image_tag="{platform_version}",
        platform_abbr="",
        skip_code=True,
        dev_server_port=8080,
        uid=1000,
    ),
    "0.1": Profile(
        name="0.1",
        run_dir="/data",
        workflow_dir="data",
        base_image="local-only/base-python-cpu:0.1.0",
        python="3.9",
        ignore_label="CI_IGNORE",
        image_tag="{abbr}_{platform_version}__{version}",
        platform_abbr="kp",
        skip_code=False,
        dev_server_port=8888,
        uid=0,
    ),
}
DEFAULT_PROFILE = "0.6"


def profile(name: str = DEFAULT_PROFILE) -> Profile:
    """The profile of that name."""
    try:
        return PROFILES[name]
    except KeyError:
        raise UsageError(
            f"There is no platform profile {name!r}.", f"Choose one of {', '.join(sorted(PROFILES))}."
        ) from None
