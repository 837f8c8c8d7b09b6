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
    operator_globals
        Lines of an operator module that bring registry and version into scope.
    image_literal
        The ``image=`` literal of an operator, ``{{…}}`` being filled in by us: of a form that the DAG installer's
        scan resolves, or the image would not be pulled beforehand.
    get_input
        Class and module of the operator that fetches the input.
    store_operator, store_arguments
        Class and module of the operator that puts files into the object store, and how it is told which.
    installer_base, installer_dags_dir
        Base of the image that installs DAGs, and where it looks for them.
    chart_values
        ``values.yaml`` of a workflow chart.
    task_api
        Whether the platform reads ``/processing-container.json``.
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
    operator_globals: str
    image_literal: str
    get_input: str
    store_operator: str
    store_arguments: str
    installer_base: str
    installer_dags_dir: str
    chart_values: str
    task_api: bool


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
        operator_globals=(
            "from kaapana.blueprints.kaapana_global_variables import DEFAULT_REGISTRY, KAAPANA_BUILD_VERSION\n"
            "from kaapana.operators.KaapanaBaseOperator import KaapanaBaseOperator\n"
            "\n"
            "# The DAG installer finds images by their text and knows this name, not KAAPANA_BUILD_VERSION.\n"
            "default_version_identifier = KAAPANA_BUILD_VERSION\n"
        ),
        image_literal='f"{{DEFAULT_REGISTRY}}/{name}:{{default_version_identifier}}"',
        get_input="GetInputOperator",
        store_operator="MinioOperator",
        store_arguments='action="put", {inputs}=[{task}], whitelisted_file_extensions={suffixes}',
        installer_base="local-only/base-installer:latest",
        installer_dags_dir="/kaapana/tmp/dags",
        chart_values='global:\n  image: "dag-{name}"\n  action: "copy"\n',
        task_api=True,
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
        operator_globals=(
            "from kaapana.operators.KaapanaBaseOperator import (\n"
            "    KaapanaBaseOperator,\n"
            "    default_platform_abbr,\n"
            "    default_platform_version,\n"
            "    default_registry,\n"
            ")\n"
        ),
        image_literal='f"{{default_registry}}/{name}:{{default_platform_abbr}}_{{default_platform_version}}__{version}"',
        get_input="LocalGetInputDataOperator",
        store_operator="LocalMinioOperator",
        store_arguments='action="put", action_operators=[{task}], file_white_tuples={suffixes}',
        installer_base="local-only/dag-installer:0.1.0",
        installer_dags_dir="/tmp/dags",  # noqa: S108 - a place in the platform's own image
        chart_values='image: "dag-{name}"\nversion: "{version}"\naction: "copy"\n',
        task_api=False,
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
