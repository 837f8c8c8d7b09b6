"""The chart side of an extension: what the platform lists and installs, and a README that says what it does.

Pure: a notebook's spec and a profile in, path -> bytes out. Everything that a notebook says of itself is foreign
text here; YAML comes out of a library, and Markdown out of `plain`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

import kaapana_nb
from kaapana_nb.contract.profiles import PROFILES, Profile
from kaapana_nb.errors import BuildError
from kaapana_nb.ship.chain import Chain, chain_for, chain_of_unknown
from kaapana_nb.ship.dag_files import DEFAULT_MEMORY_MIB, PARALLEL, RUNNER_MIB, version_of
from kaapana_nb.work.notebook import NotebookSpec
from kaapana_nb.work.parameters import Parameter

INSTALLER = "dag-installer-chart"
KEYWORDS = ("kaapanaworkflow", "kaapanaexperimental")
"""By the first the platform lists the chart; the second marks it as not part of a release."""

MAX_DESCRIPTION = 250
"""Longest description in ``Chart.yaml``, in characters: it is one cell of the platform's table."""
MAX_TEXT = 500
"""Longest text of a notebook in the README, in characters."""

_LEFT_OUT = ("ci", "__pycache__")
_MARKDOWN = re.compile(r"[\\`*_\[\]|~#{}$^]")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;", "://": "&#58;//", "www.": "www&#46;"}


def chart_files(spec: NotebookSpec, profile: Profile, *, parity: Mapping[str, Any] | None = None) -> dict[str, bytes]:
    """Files below ``extension/``: path -> content.

    Parameters
    ----------
    parity
        The parity proof (``parity.json``) to show in the README; ``None`` while there is none.

    Raises
    ------
    BuildError
        When this installation lacks the installer chart.
    """
    chart = f"{spec.name}-workflow"
    return {
        f"{chart}/Chart.yaml": chart_yaml(spec),
        f"{chart}/requirements.yaml": requirements_yaml(),
        f"{chart}/values.yaml": values_yaml(spec, profile),
        f"{chart}/README.md": readme(spec, profile, parity).encode(),
        f"{chart}/templates/NOTES.txt": notes_txt(spec),
        **{f"{INSTALLER}/{name}": data for name, data in installer_files().items()},
    }


def installer_directory(package: Path | None = None) -> Path:
    """The installer chart: in a clone beside the package, in an installed wheel inside it.

    Parameters
    ----------
    package
        Directory of the package; ``None`` for the one that is running.

    Raises
    ------
    BuildError
        When it is in neither place.
    """
    package = package or Path(kaapana_nb.__file__).parent
    places = [parent / "charts" / INSTALLER for parent in (package.parent, package)]
    for directory in places:
        if (directory / "Chart.yaml").is_file():
            return directory
    raise BuildError(
        f"There is no {INSTALLER} in {places[0].parent}.",
        f"Check it out again: git checkout charts/{INSTALLER}; or install kaapana-nb again.",
    )


def installer_files() -> dict[str, bytes]:
    """The installer chart's files: relative path -> content, without the values of its tests."""
    root = installer_directory()
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    names = [(path.relative_to(root), path) for path in paths]
    return {name.as_posix(): path.read_bytes() for name, path in names if name.parts[0] not in _LEFT_OUT}


def chart_yaml(spec: NotebookSpec) -> bytes:
    """``Chart.yaml`` of the workflow chart; form v1, since the platform reads ``requirements.yaml``."""
    version = version_of(spec)
    return _dump(
        {
            "apiVersion": "v1",
            "appVersion": version,
            "description": one_line(_description(spec), MAX_DESCRIPTION),
            "name": f"{spec.name}-workflow",
            "version": version,
            "keywords": list(KEYWORDS),
        }
    )


def requirements_yaml() -> bytes:
    """The dependency on the installer chart beside it."""
    installer = yaml.safe_load((installer_directory() / "Chart.yaml").read_bytes())
    dependency = {"name": INSTALLER, "version": str(installer["version"]), "repository": f"file://../{INSTALLER}"}
    return _dump({"dependencies": [dependency]})


def values_yaml(spec: NotebookSpec, profile: Profile) -> bytes:
    """The profile's values, below ``global``: Helm hands nothing else of a chart on to those that it depends on."""
    values = yaml.safe_load(profile.chart_values.format(name=spec.name, version=version_of(spec)))
    return _dump(values if "global" in values else {"global": values})


def notes_txt(spec: NotebookSpec) -> bytes:
    """What Helm says after installing: where the workflow appears, and where to look when it does not."""
    return f"""\
The workflow {spec.name} is being installed: the Job dag-{spec.name} copies its DAG into Airflow.
If it does not appear there a minute or so later:

  kubectl -n {{{{ .Values.global.services_namespace | default .Release.Namespace }}}} logs job/dag-{spec.name}
  kubectl -n {{{{ .Values.global.services_namespace | default .Release.Namespace }}}} describe job/dag-{spec.name}
""".encode()


def readme(spec: NotebookSpec, profile: Profile, parity: Mapping[str, Any] | None = None) -> str:
    """What the workflow does, its parameters and resources, how it is installed, and its parity proof."""
    chain = chain_for(spec.algorithm) if spec.algorithm else chain_of_unknown(batch_level=not spec.is_script)
    lines = [
        f"# {spec.name}",
        "",
        plain(_description(spec)),
        "",
        f"A workflow for Kaapana {profile.name}, version {version_of(spec)}, written by kaapana-nb.",
        "",
        "## What it does",
        "",
        *(f"{number}. {text}" for number, text in enumerate(_steps(spec, chain), start=1)),
        "",
        "## Parameters",
        "",
        *_parameters(spec),
        "",
        "## Resources",
        "",
        *_resources(spec),
        "",
        f"## Installing it on Kaapana {profile.name}",
        "",
        *_INSTALL[profile.name](spec, profile),
        "",
        *(
            f"For Kaapana {other}, export again: `kaapana-nb export … --platform {other}`."
            for other in sorted(PROFILES)
            if other != profile.name
        ),
        "",
        "## Parity proof",
        "",
        *_parity(parity),
    ]
    return "\n".join(lines) + "\n"


def plain(text: object, longest: int = MAX_TEXT) -> str:
    """Foreign text for one line or table cell of Markdown: no markup, no HTML, no link, no line break."""
    escaped = _MARKDOWN.sub(lambda match: f"\\{match[0]}", one_line(str(text), longest))
    for sign, entity in _HTML.items():
        escaped = escaped.replace(sign, entity)
    first = escaped[:1]
    if first in {"-", "+", "=", "!"}:
        return f"\\{escaped}"
    return re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", escaped)


def one_line(text: str, longest: int) -> str:
    """`text` on one line, printable, and cut where it is too long."""
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"


def _dump(data: object) -> bytes:
    text: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, explicit_start=True, width=120)
    return text.encode()


def _description(spec: NotebookSpec) -> str:
    text = one_line(spec.algorithm.description, MAX_TEXT) if spec.algorithm else ""
    return text or f"Runs {spec.name}."


def _steps(spec: NotebookSpec, chain: Chain) -> Iterator[str]:
    """A sentence for each of the chain's steps."""
    on = "on the whole batch at once" if chain.batch_level else "on each series"
    words = {
        "get input": "Fetches the series for which the workflow was started, as DICOM.",
        "convert": "Converts each series to NRRD.",
        "algorithm": f"Runs `{spec.name}` {on}.",
        "DICOM SEG": f"Turns the mask into a DICOM segmentation object: {plain(chain.segmentation or '')}.",
        "send to PACS": "Sends the DICOM results to the platform's PACS.",
        "object store": f"Puts the results ({', '.join(chain.suffixes)}) into the object store.",
        "clean": "Removes the run's directory.",
    }
    for step in chain.steps:
        if step == chain.after:
            yield f"Runs `{step}`; its extension must be installed as well."
        else:
            yield words.get(step, f"{plain(step)}.")


def _parameters(spec: NotebookSpec) -> list[str]:
    parameters = spec.algorithm.parameters if spec.algorithm else ()
    always = "Every workflow can also be started for each series by itself (`single_execution`)."
    if not parameters:
        return [f"None. {always}"]
    rows = [_row(parameter) for parameter in parameters]
    head = ("Name", "Environment", "Allowed", "Default", "Meaning")
    return [*_table(head, rows), "", always]


def _row(parameter: Parameter) -> tuple[str, ...]:
    if parameter.required:
        default = "none: it must be given"
    else:
        default = "nothing" if parameter.default is None else plain(repr(parameter.default))
    return (
        f"`{parameter.name}`",
        f"`{parameter.variable}`",
        plain(parameter.allowed),
        default,
        plain(parameter.description),
    )


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    cells = list(head)
    lines = [cells, ["---"] * len(cells), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _resources(spec: NotebookSpec) -> list[str]:
    declared = spec.algorithm.options.memory_mib if spec.algorithm else None
    memory = declared or DEFAULT_MEMORY_MIB
    said = f"declares {memory} MiB a call" if declared else f"declares no memory; {memory} MiB a call are assumed"
    return [
        f"The container asks for {memory + RUNNER_MIB} MiB and may use up to {PARALLEL * memory + RUNNER_MIB} MiB: "
        f"the algorithm {said}.",
    ]


def _install_06(spec: NotebookSpec, profile: Profile) -> list[str]:
    return [
        "1. Build both images and push them to the platform's registry. The tag is the platform's build version, "
        "which its page shows at the bottom:",
        "",
        *_images(spec, profile.image_tag.format(platform_version="<build version>")),
        "",
        "   For another registry, name it in `values.yaml` as `global.custom_registry_url`. Where the platform reaches "
        "none, upload the images as tar files on its extension page.",
        *_pack(spec, "2"),
        f"3. Upload `{spec.name}-workflow-{version_of(spec)}.tgz` on the extension page and install it there.",
        f"4. Start the workflow `{spec.name}` on a dataset.",
        "",
        *_when_it_fails("<services namespace>", spec),
    ]


def _install_01(spec: NotebookSpec, profile: Profile) -> list[str]:
    tag = profile.image_tag.format(
        abbr=profile.platform_abbr, platform_version="<platform version>", version=version_of(spec)
    )
    return [
        "1. Build both images and push them to the platform's registry, under exactly these tags; the platform's page "
        "shows its version at the bottom:",
        "",
        *_images(spec, tag),
        "",
        *_pack(spec, "2"),
        f"3. Copy `{spec.name}-workflow-{version_of(spec)}.tgz` into the directory `extensions` of the server's "
        "`FAST_DATA_DIR`, and install it on the extension page.",
        f"4. Start the workflow `{spec.name}` on a cohort.",
        "",
        *_when_it_fails("default", spec),
    ]


_INSTALL: dict[str, Callable[[NotebookSpec, Profile], list[str]]] = {"0.6": _install_06, "0.1": _install_01}


def _images(spec: NotebookSpec, tag: str) -> list[str]:
    return [f"       <registry>/{name}:{tag}" for name in (spec.name, f"dag-{spec.name}")]


def _pack(spec: NotebookSpec, number: str) -> list[str]:
    return [
        f"{number}. Pack the chart, in the directory `extension`:",
        "",
        f"       helm dependency update {spec.name}-workflow",
        f"       helm package {spec.name}-workflow",
        "",
    ]


def _when_it_fails(namespace: str, spec: NotebookSpec) -> list[str]:
    return [
        f"When it does not appear: `kubectl -n {namespace} logs job/dag-{spec.name}`. Uninstalling the extension takes "
        "the DAG out of Airflow again.",
    ]


def _parity(parity: Mapping[str, Any] | None) -> list[str]:
    if parity is None:
        return [
            "None yet. `kaapana-nb verify` runs the notebook and the container on the same batch and compares "
            "their results, output by output.",
        ]
    equal = parity.get("equal") is True
    outcome = "the same results" if equal else "**different results**"
    facts = [(plain(key), plain(value)) for key, value in _facts(parity)]
    return [
        f"Notebook and container were run on the same batch and gave {outcome}. The whole proof is `parity.json`.",
        "",
        *_table(("Fact", "Value"), facts),
    ]


def _facts(parity: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Names and values to show. Rows of single outputs are counted, not shown: they name series."""
    for key, value in parity.items():
        name = f"{prefix}{key}"
        if key == "equal" and not prefix:
            continue
        if isinstance(value, Mapping):
            yield from _facts(value, f"{name} ")
        elif key == "elements" and isinstance(value, list | tuple):
            same = sum(isinstance(row, Mapping) and row.get("equal") is True for row in value)
            yield "outputs that are equal", f"{same} of {len(value)}"
        elif isinstance(value, str | int | float | bool) or value is None:
            yield name, value
        elif isinstance(value, list | tuple):
            yield name, ", ".join(str(item) for item in value if isinstance(item, str | int | float))
