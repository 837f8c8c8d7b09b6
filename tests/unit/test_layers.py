"""Each layer imports only layers above it in the table of docs/architecture.md, and nothing goes in a circle."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "kaapana_nb"

# From the top of the table down. The package itself resolves its public names lazily and belongs to no layer.
LAYERS = ("base", "contract", "clients", "data", "work", "widgets", "ship", "devserver", "emulator", "cli")
BASE = {"errors", "settings", "reference", "files"}
OUTSIDE = {"": LAYERS, "__main__": ("cli",)}
# The emulator stands for the other side: it may use what is real on both, and nothing that is ours alone.
EMULATOR_MAY = {"base", "contract", "clients", "data", "emulator"}
HEAVY = ("SimpleITK", "papermill", "ipywidgets", "airflow", "numpy", "pydicom", "httpx", "IPython")


def layer_of(module: str) -> str:
    """Layer of ``kaapana_nb.<part>…``; the empty string for the package itself."""
    parts = module.split(".")
    if len(parts) == 1:
        return ""
    return "base" if parts[1] in BASE else parts[1]


def allowed(layer: str) -> set[str]:
    if layer in OUTSIDE:
        return set(OUTSIDE[layer])
    if layer == "emulator":
        return EMULATOR_MAY
    above = set(LAYERS[: LAYERS.index(layer) + 1])
    return above if layer == "cli" else above - {"emulator"}


def modules_of(directory: Path) -> dict[str, Path]:
    """Name -> file of every module of the package that lies in `directory`."""
    found = {}
    for file in sorted(directory.rglob("*.py")):
        parts = file.relative_to(directory.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports_of(module: str, file: Path, known: set[str]) -> Iterator[tuple[int, str]]:
    """Line and name of each module of the package that `file` imports, inside functions too."""
    for node in ast.walk(ast.parse(file.read_text(), filename=str(file))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = node.module or ""
            if node.level:
                here = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
                start = ".".join([*here[: len(here) - node.level + 1], *([start] if start else [])])
            submodules = [f"{start}.{alias.name}" for alias in node.names]
            names = [name if name in known else start for name in submodules]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == PACKAGE)


def violations(directory: Path) -> list[str]:
    """One line per import that looks down or across, with file and line."""
    modules = modules_of(directory)
    found = []
    for module, file in modules.items():
        for line, name in imports_of(module, file, set(modules)):
            if layer_of(name) and layer_of(name) not in allowed(layer_of(module)):
                found.append(f"{file.relative_to(directory.parent)}:{line}: {layer_of(module)} imports {name}")
    return found


def top_level_imports(module: str, file: Path, known: set[str]) -> set[str]:
    """Modules of the package that importing `module` imports at once (not in a function, not for types only)."""
    tree = ast.parse(file.read_text(), filename=str(file))
    later = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        or (isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"))
        for inner in ast.walk(node)
    }
    lines = {
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in later
    }
    return {name for line, name in imports_of(module, file, known) if line in lines and name in known}


def circle(directory: Path) -> list[str]:
    """The modules of one circle of imports, or nothing."""
    modules = modules_of(directory)
    graph = {name: top_level_imports(name, file, set(modules)) for name, file in modules.items()}
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for other in sorted(graph[name]):
            if other != name and (found := visit(other, [*path, name])):
                return found
        done.add(name)
        return []

    return next((found for name in graph if (found := visit(name, []))), [])


def test_every_import_looks_up() -> None:
    assert violations(ROOT / PACKAGE) == []


def test_no_circle() -> None:
    assert circle(ROOT / PACKAGE) == []


def test_every_module_belongs_to_a_layer() -> None:
    assert {layer_of(module) for module in modules_of(ROOT / PACKAGE)} <= {*LAYERS, *OUTSIDE}


def test_table_of_the_documentation_is_this_one() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| [a-z ]+ \| ((?:`[a-z]+/?`(?:, )?)+) \|", text, flags=re.MULTILINE)
    documented = [set(re.findall(r"`([a-z]+)/?`", row)) for row in rows]
    assert documented == [BASE, *({layer} for layer in LAYERS[1:])]


@pytest.mark.parametrize(
    ("file", "source", "seen"),
    [
        ("data/planted.py", "from kaapana_nb.ship import export", "data imports kaapana_nb.ship"),
        ("errors.py", "import kaapana_nb.contract.names", "base imports kaapana_nb.contract.names"),
        ("ship/planted.py", "def f():\n    from kaapana_nb.emulator import sample", "ship imports kaapana_nb.emulator"),
        ("emulator/planted.py", "from ..work import run", "emulator imports kaapana_nb.work"),
        ("emulator/planted.py", "import kaapana_nb.devserver", "emulator imports kaapana_nb.devserver"),
        ("devserver/__init__.py", "from ..cli import lab", "devserver imports kaapana_nb.cli"),
        ("contract/planted.py", "from .. import data", "contract imports kaapana_nb.data"),
    ],
)
def test_planted_violation_is_found(tmp_path: Path, file: str, source: str, seen: str) -> None:
    package = tmp_path / PACKAGE
    for layer in LAYERS[1:]:
        (package / layer).mkdir(parents=True)
        (package / layer / "__init__.py").write_text("")
    (package / "__init__.py").write_text("")
    assert violations(package) == []
    (package / file).write_text(source)
    found = violations(package)
    assert len(found) == 1
    assert seen in found[0]


def test_planted_circle_is_found(tmp_path: Path) -> None:
    package = tmp_path / PACKAGE
    (package / "data").mkdir(parents=True)
    for name in ("__init__.py", "data/__init__.py"):
        (package / name).write_text("")
    (package / "data" / "one.py").write_text("from kaapana_nb.data import two")
    (package / "data" / "two.py").write_text("def f():\n    import kaapana_nb.data.one")
    assert circle(package) == []
    (package / "data" / "two.py").write_text("import kaapana_nb.data.one")
    assert circle(package) == ["kaapana_nb.data.one", "kaapana_nb.data.two", "kaapana_nb.data.one"]


@pytest.mark.parametrize(
    "module", ["kaapana_nb", "kaapana_nb.cli.main", "kaapana_nb.contract", "kaapana_nb.devserver.session"]
)
def test_import_stays_light(module: str) -> None:
    program = f"import sys, {module}; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    assert [name for name in HEAVY if name in loaded] == []
