"""The workflow chart: what the platform reads, what a reader sees, and foreign text that stays text."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import mistune
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kaapana_nb import __version__
from kaapana_nb.contract.names import class_name
from kaapana_nb.contract.profiles import PROFILES, profile
from kaapana_nb.errors import BuildError
from kaapana_nb.ship.chain import chain_for
from kaapana_nb.ship.chart_files import INSTALLER, chart_files, installer_directory, one_line, plain, readme
from kaapana_nb.ship.export import ExtensionFiles, export_notebook, write_extension
from kaapana_nb.ship.parity import PARITY_FILE
from kaapana_nb.work.notebook import NotebookSpec
from kaapana_nb.work.parameters import Parameter

ROOT = Path(__file__).resolve().parents[3]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
OTSU = NotebookSpec.read(ROOT / "notebooks" / "otsus_method.ipynb")
CHART = "otsus-method-workflow"

HOSTILE = [
    "<script>alert(1)</script>",
    "[here](javascript:alert(1)) ![x](http://example.org/x.png)",
    "see https://example.org and www.example.org or mail@example.org",
    "a | b | c",
    "# heading\n- list\n1. number\n\n    code",
    "`code` **bold** _it_ ~~gone~~ $x^2$ &lt; \\",
    "1) first",
    "{{ .Values.global.image }}",
    "yes: 'no' \"quoted\" #comment\n---\nkey: value",
    "\u202eevil\u0000\x1b[31m",
]


class Page(HTMLParser):
    """Tags and text of rendered Markdown."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def page(markdown: str) -> Page:
    render = mistune.create_markdown(escape=False, plugins=["table", "strikethrough", "url", "task_lists"])
    html = render(markdown)
    assert isinstance(html, str)
    return Page(html)


def described(text: str) -> NotebookSpec:
    assert OTSU.algorithm is not None
    first, *others = OTSU.algorithm.parameters
    parameters = (replace(first, description=text), *others)
    return replace(OTSU, algorithm=replace(OTSU.algorithm, description=text, parameters=parameters))


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_platform_finds_what_it_reads(path: Path, name: str) -> None:
    spec = NotebookSpec.read(path)
    files = chart_files(spec, profile(name))
    chart = yaml.safe_load(files[f"{spec.name}-workflow/Chart.yaml"])
    assert chart["name"] == f"{spec.name}-workflow"
    assert chart["version"] == chart["appVersion"] == "0.1.0"
    assert chart["keywords"] == ["kaapanaworkflow", "kaapanaexperimental"]
    values = yaml.safe_load(files[f"{spec.name}-workflow/values.yaml"])
    expected = {"image": f"dag-{spec.name}", "action": "copy"} | ({"version": "0.1.0"} if name == "0.1" else {})
    assert values == {"global": expected}
    (dependency,) = yaml.safe_load(files[f"{spec.name}-workflow/requirements.yaml"])["dependencies"]
    beside = dependency["repository"].removeprefix("file://../")
    installer = yaml.safe_load(files[f"{beside}/Chart.yaml"])
    assert (dependency["name"], dependency["version"]) == (installer["name"], installer["version"])


def test_the_same_spec_gives_the_same_bytes() -> None:
    again = NotebookSpec.read(OTSU.path)
    assert chart_files(OTSU, profile("0.6")) == chart_files(again, profile("0.6"))


def test_the_installer_chart_comes_along_without_the_values_of_its_tests() -> None:
    root = ROOT / "charts" / INSTALLER
    expected = {
        f"{INSTALLER}/{path.relative_to(root).as_posix()}": path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.parent.name != "ci"
    }
    files = chart_files(OTSU, profile("0.6"))
    assert {path: data for path, data in files.items() if path.startswith(f"{INSTALLER}/")} == expected


def test_the_installer_chart_is_found_in_an_installed_wheel(tmp_path: Path) -> None:
    package = tmp_path / "site-packages" / "kaapana_nb"
    inside = package / "charts" / INSTALLER
    inside.mkdir(parents=True)
    with pytest.raises(BuildError, match="no dag-installer-chart"):
        installer_directory(package)
    (inside / "Chart.yaml").write_text("name: x")
    assert installer_directory(package) == inside


def test_the_readme_says_every_step_parameter_and_image() -> None:
    assert OTSU.algorithm is not None
    text = readme(OTSU, profile("0.6"))
    steps = [line for line in text.splitlines() if line[:1].isdigit()][: len(chain_for(OTSU.algorithm).steps)]
    words = ["Fetches", "Converts", "`otsus-method`", "segmentation object: abdomen", "PACS", "Removes"]
    assert [word in step for word, step in zip(words, steps, strict=True)] == [True] * len(words)
    assert "| `inside` | `INSIDE` | a whole number | 0 | Label of voxels up to the threshold" in text
    assert "asks for 1500 MiB and may use up to 2500 MiB" in text
    assert "<registry>/dag-otsus-method:<build version>" in text
    assert "<registry>/dag-otsus-method:kp_<platform version>__0.1.0" in readme(OTSU, profile("0.1"))


def test_the_readme_names_the_extension_that_must_be_there_first() -> None:
    text = readme(NotebookSpec.read(ROOT / "notebooks" / "pool_jsons.ipynb"), profile("0.6"))
    assert "Runs `extract-study-id`; its extension must be installed as well." in text
    assert "on the whole batch at once" in text


def test_every_kind_of_parameter_is_shown() -> None:
    assert OTSU.algorithm is not None
    parameters = (
        Parameter(name="count", type="int", required=True),
        Parameter(name="mode", type="str", default="a|b", choices=("a|b", "c")),
        Parameter(name="limit", type="float", optional=True, exclusive_minimum=0),
    )
    spec = replace(OTSU, algorithm=replace(OTSU.algorithm, parameters=parameters))
    shown = page(readme(spec, profile("0.6")))
    assert shown.tags.count("td") == 3 * 5
    assert {"none: it must be given", "'a|b'", "nothing", "a number of more than 0, or nothing"} <= set(shown.text)


def test_without_a_proof_the_readme_says_how_to_get_one() -> None:
    assert "None yet. `kaapana-nb verify`" in readme(OTSU, profile("0.6"))


@pytest.mark.parametrize(("equal", "words"), [(True, "the same results"), (False, "**different results**")])
def test_the_proof_is_shown_without_naming_a_series(equal: bool, words: str) -> None:
    parity = {
        "equal": equal,
        "batch": {"fingerprint": "sha256:0123", "series": 2},
        "versions": {"kaapana-nb": "0.1.0"},
        "elements": [{"element": "1.2.840.1", "equal": True}, {"element": "1.2.840.2", "equal": equal}],
    }
    text = readme(OTSU, profile("0.6"), parity)
    assert f"gave {words}" in text
    assert "| batch fingerprint | sha256:0123 |" in text
    assert "| versions kaapana-nb | 0.1.0 |" in text
    assert f"| outputs that are equal | {1 + equal} of 2 |" in text
    assert "1.2.840" not in text


@settings(deadline=None)
@given(st.text(max_size=80))
@example(HOSTILE[0])
@example(HOSTILE[1])
@example(HOSTILE[2])
@example(HOSTILE[4])
@example(HOSTILE[5])
@example(HOSTILE[6])
def test_foreign_text_is_one_paragraph_that_reads_as_it_was(text: str) -> None:
    shown = page(plain(text))
    line = one_line(text, 500)
    assert shown.tags == (["p"] if line else [])
    assert "".join(shown.text).strip() == line


@settings(deadline=None)
@given(st.text(max_size=400))
@example(HOSTILE[8])
@example("x" * 300)
def test_any_description_comes_back_from_the_chart(text: str) -> None:
    chart = yaml.safe_load(chart_files(described(text), profile("0.6"))[f"{CHART}/Chart.yaml"])
    assert chart["description"] == (one_line(text, 250) or "Runs otsus-method.")
    assert len(chart["description"]) <= 250


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_changes_nothing_but_itself(text: str) -> None:
    harmless = page(readme(described("harmless"), profile("0.6")))
    hostile = page(readme(described(text), profile("0.6")))
    assert hostile.tags == harmless.tags


def documented() -> set[str]:
    """The paths in the first column of docs/export.md's tables."""
    page_text = (ROOT / "docs" / "export.md").read_text()
    return set(re.findall(r"^\| `([^`]+)` \|", page_text, flags=re.MULTILINE))


def generic(path: str, extension: ExtensionFiles) -> str:
    """A path with the notebook's own names replaced by what docs/export.md calls them."""
    module = extension.name.replace("-", "_")
    if path == f"processing-containers/{extension.name}/files/mine.py":
        return "processing-containers/<name>/files/<local module>"
    for own, name in {
        f"kaapana_nb-{__version__}-": "kaapana_nb-<version>-",
        class_name(extension.name): "<Name>",
        extension.name: "<name>",
        module: "<module>",
    }.items():
        path = path.replace(own, name)
    return path


def test_the_page_names_every_file_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("FACTOR = 2\n")
    script = tmp_path / "own_loop.py"
    script.write_text("import mine\nprint(mine.FACTOR)\n")
    written = set()
    for path, as_script in ((OTSU.path, False), (OTSU.path, True), (script, False)):
        for name in PROFILES:
            extension = export_notebook(path, profile(name), script=as_script)
            files = write_extension(extension, tmp_path / f"{path.stem}-{name}-{as_script}")
            root = tmp_path / f"{path.stem}-{name}-{as_script}"
            written |= {generic(file.relative_to(root).as_posix(), extension) for file in files}
    assert written | {PARITY_FILE} == documented()
