"""A notebook as an operator: read and checked in milliseconds, before any kernel is started.

Nothing in the notebook is executed. The algorithm's signature is evaluated without its body, with literal
defaults only, so that the same rules as at run time (`kaapana_nb.work.parameters`) say what its parameters are.
"""

from __future__ import annotations

import ast
import json
import typing
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kaapana_nb.contract.names import slug
from kaapana_nb.errors import KaapanaNbError, NotebookError, ParameterError
from kaapana_nb.work.options import AlgorithmOptions
from kaapana_nb.work.parameters import Parameter, parameters_of

MAX_NOTEBOOK_BYTES = 100 * 2**20
EXPLORE = "explore"
"""Tag of cells that are for the developer's eyes: never executed by ``run`` and never exported."""
PARAMETERS = "parameters"
"""Tag of the cell whose variables papermill may set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell. ``index`` counts from 1 over all cells of the file, as error messages name it."""

    index: int
    kind: str
    source: str
    tags: frozenset[str] = frozenset()

    @property
    def is_code(self) -> bool:
        return self.kind == "code" and self.source.strip() != ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlgorithmSpec:
    """What the notebook says of its algorithm, without having run it.

    ``input_type`` and ``output_type`` are the annotations as written (``sitk.Image``), or empty.
    """

    name: str
    function: str
    cell: int
    input_type: str
    output_type: str
    parameters: tuple[Parameter, ...]
    options: AlgorithmOptions = field(default_factory=AlgorithmOptions)
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotebookSpec:
    """A notebook that was read and found to be well-formed.

    Attributes
    ----------
    name
        The operator's name: the algorithm's, else the file's.
    cells
        All cells except those tagged ``explore``.
    variables
        Names that the cell tagged ``parameters`` assigns.
    imports
        Top-level modules that the cells import.
    """

    path: Path
    name: str
    cells: tuple[Cell, ...]
    algorithm: AlgorithmSpec | None = None
    variables: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    runs_algorithm: bool = False
    trees: tuple[ast.Module, ...] = field(default=(), repr=False)

    @property
    def is_script(self) -> bool:
        """Whether it is a Python file instead of a notebook."""
        return self.path.suffix == ".py"

    def require_run_cell(self) -> None:
        """Raise `NotebookError` when there is an algorithm that is never run over the batch."""
        if self.algorithm is not None:
            self.require_algorithm()

    def require_algorithm(self) -> AlgorithmSpec:
        """The algorithm, with a run cell.

        Raises
        ------
        NotebookError
            When the notebook has none, or never runs it over the batch.
        """
        if self.algorithm is None:
            raise NotebookError(
                f"{self.path.name} has no algorithm.", "Decorate the function that does the work with @algorithm."
            )
        if not self.runs_algorithm:
            call = f"run({self.algorithm.function}, Batch.from_environ())"
            raise NotebookError(
                f"{self.path.name} never runs {self.algorithm.function} over the batch.", f"Add a last cell: {call}"
            )
        return self.algorithm

    @classmethod
    def read(cls, path: Path) -> NotebookSpec:
        """Read and check a notebook, or a Python file, which counts as one cell.

        Raises
        ------
        NotebookError
            When there is none, it is no notebook, a cell has a syntax error, or it has two algorithms.
        """
        cells = tuple(_cells(path))
        code = [cell for cell in cells if cell.is_code]
        trees = [_parse(path, cell) for cell in code]
        aliases = _decorator_names(trees)
        found = [
            _algorithm(path, cell, node, decorator)
            for cell, tree in zip(code, trees, strict=True)
            for node in tree.body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            for decorator in node.decorator_list
            if _dotted(decorator.func if isinstance(decorator, ast.Call) else decorator) in aliases
        ]
        if len(found) > 1:
            names = " and ".join(f"{item.function} (cell {item.cell})" for item in found)
            raise NotebookError(
                f"{path.name} has {len(found)} algorithms: {names}; one was expected.",
                "Keep one in this notebook and move the other to a notebook of its own.",
            )
        algorithm = found[0] if found else None
        return cls(
            path=path,
            name=algorithm.name if algorithm else slug(path.stem),
            cells=cells,
            algorithm=algorithm,
            variables=tuple(_variables(code, trees)),
            imports=tuple(sorted(set(_imports(trees)))),
            runs_algorithm=algorithm is not None and any(_runs(tree, algorithm.function) for tree in trees),
            trees=tuple(trees),
        )


def _cells(path: Path) -> Iterator[Cell]:
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= MAX_NOTEBOOK_BYTES else b""
    except OSError as error:
        raise NotebookError(
            f"There is no readable notebook {path}.", "Name an .ipynb file; `ls *.ipynb` shows those of this directory."
        ) from error
    if path.suffix == ".py":
        yield Cell(index=1, kind="code", source=_decoded(path, data))
        return
    try:
        notebook = json.loads(data)
        if notebook["nbformat"] != 4:
            raise ValueError("nbformat")
        for index, cell in enumerate(notebook["cells"], start=1):
            source = cell["source"]
            tags = frozenset(str(tag) for tag in cell.get("metadata", {}).get("tags", ()))
            text = source if isinstance(source, str) else "".join(source)
            if EXPLORE not in tags:
                yield Cell(index=index, kind=str(cell["cell_type"]), source=text, tags=tags)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NotebookError(
            f"{path.name} is no notebook of format 4 ({size} bytes).", "Open it in JupyterLab and save it again."
        ) from error


def _decoded(path: Path, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise NotebookError(f"{path.name} is no text in UTF-8.", "Save it as UTF-8.") from error


def _parse(path: Path, cell: Cell) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd escape in a notebook's text is not our reader's business
            try:
                return ast.parse(cell.source)
            except SyntaxError:
                if path.suffix == ".py":
                    raise
                return ast.parse(_without_magics(cell.source))
    except Exception as error:
        line = getattr(error, "lineno", None) or 1
        message = getattr(error, "msg", None) or "this is not Python"
        raise NotebookError(
            f"Syntax error in {path.name}, cell {cell.index}, line {line}: {message}.", "Correct the cell and save."
        ) from error


def _without_magics(source: str) -> str:
    """The cell with IPython's own syntax turned into calls. IPython is imported for such cells only: it is slow."""
    from IPython.core.inputtransformer2 import TransformerManager

    python: str = TransformerManager().transform_cell(source)
    return python


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = _dotted(node.value)
        return f"{base}.{node.attr}" if base else ""
    return ""


def _decorator_names(trees: list[ast.Module]) -> set[str]:
    """Every spelling by which these cells may mean `kaapana_nb.algorithm`."""
    names = set()
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "kaapana_nb":
                names |= {alias.asname or alias.name for alias in node.names if alias.name == "algorithm"}
                names |= {"algorithm" for alias in node.names if alias.name == "*"}
            elif isinstance(node, ast.Import):
                names |= {
                    f"{alias.asname or alias.name}.algorithm" for alias in node.names if alias.name == "kaapana_nb"
                }
    return names


def _imports(trees: list[ast.Module]) -> Iterator[str]:
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from (alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                yield node.module.split(".")[0]


def _variables(code: list[Cell], trees: list[ast.Module]) -> Iterator[str]:
    for cell, tree in zip(code, trees, strict=True):
        if PARAMETERS not in cell.tags:
            continue
        for node in tree.body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            if isinstance(node, ast.AnnAssign):
                targets = [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def _runs(tree: ast.Module, function: str) -> bool:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _dotted(node.func).rpartition(".")[2] == "run" and node.args:
            first = node.args[0]
            if isinstance(first, ast.Name) and first.id == function:
                return True
    return False


def _algorithm(
    path: Path, cell: Cell, node: ast.FunctionDef | ast.AsyncFunctionDef, decorator: ast.expr
) -> AlgorithmSpec:
    def wrong(problem: str, remedy: str) -> NotebookError:
        return NotebookError(f"{path.name}, cell {cell.index}: {problem}", remedy)

    options: dict[str, Any] = {}
    for keyword in decorator.keywords if isinstance(decorator, ast.Call) else []:
        try:
            options[str(keyword.arg)] = ast.literal_eval(keyword.value)
        except ValueError:
            raise wrong(f"@algorithm({keyword.arg}=...) is no literal.", "Write the number or text itself.") from None
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    if len(positional) != 1 or positional[0].annotation is None:
        raise wrong(
            f"{node.name} needs exactly one positional parameter, with an annotation.",
            f"Write def {node.name}(image: sitk.Image, *, threshold: int = 0) and the like.",
        )
    try:
        checked = AlgorithmOptions.checked(options)
        parameters = parameters_of(_signature_only(node))
        name = slug(node.name)
    except KaapanaNbError as error:
        raise type(error)(f"{path.name}, cell {cell.index}: {error.problem}", error.remedy) from error
    return AlgorithmSpec(
        name=name,
        function=node.name,
        cell=cell.index,
        input_type=ast.unparse(positional[0].annotation),
        output_type=ast.unparse(node.returns) if node.returns else "",
        parameters=parameters,
        options=checked,
        description=" ".join((ast.get_docstring(node) or "").partition("\n\n")[0].split()),
    )


class _Unknown:
    """Stands for any name of the notebook in an annotation; only what a form can show is looked at."""

    def __getattr__(self, name: str) -> _Unknown:
        if name.startswith("__") or name in {"ge", "gt", "le", "lt"}:
            raise AttributeError(name)
        return self

    def __getitem__(self, item: object) -> _Unknown:
        return self

    def __or__(self, other: object) -> _Unknown:
        return self

    __ror__ = __or__

    def __call__(self, *args: object) -> None:
        """Lets ``typing`` take it for a type."""


class _Bound:
    def __init__(self, **limits: float) -> None:
        self.__dict__.update(limits)


def _bound(name: str) -> Any:
    return lambda *values, **limits: _Bound(**(limits or dict(zip(_BOUNDS[name], values, strict=False))))


_BOUNDS = {"Ge": ("ge",), "Gt": ("gt",), "Le": ("le",), "Lt": ("lt",), "Interval": ("gt", "ge", "lt", "le")}
_KNOWN: dict[str, Any] = {
    **{name: getattr(typing, name) for name in ("Annotated", "Literal", "Optional", "Union")},
    **{kind.__name__: kind for kind in (int, float, str, bool, list, dict, tuple, set)},
    **{name: _bound(name) for name in _BOUNDS},
    "None": None,
}


class _Names(dict[str, Any]):
    def __missing__(self, name: str) -> Any:
        return _Unknown()


def _signature_only(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Any:
    """The function without its body, its decorators and every annotation that needs the notebook's names.

    Annotations may hold names, attributes, subscripts, ``|``, constants and the bounds Ge, Gt, Le, Lt, Interval;
    defaults may hold literals. Anything else is refused, so that nothing of the notebook runs.
    """
    arguments = node.args
    for default in [*arguments.defaults, *arguments.kw_defaults]:
        try:
            if default is not None:
                ast.literal_eval(default)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            raise ParameterError(
                f"A default of {node.name} is {ast.unparse(default)!r}; a literal was expected." if default else "",
                "Write the number or text itself as default: forms and other tools read it without running code.",
            ) from None
    bare = ast.FunctionDef(
        name=node.name,
        args=ast.arguments(
            posonlyargs=[],
            args=[],
            kwonlyargs=[
                ast.arg(arg=item.arg, annotation=_annotation(item.annotation, item.arg))
                for item in arguments.kwonlyargs
            ],
            kw_defaults=arguments.kw_defaults,
            defaults=[],
        ),
        body=[ast.Expr(ast.Constant(ast.get_docstring(node, clean=False) or ""))],
        decorator_list=[],
    )
    module = ast.fix_missing_locations(ast.Module(body=[bare], type_ignores=[]))
    names = _Names(_KNOWN)
    exec(compile(module, "<signature>", "exec", dont_inherit=True), {"__builtins__": {}}, names)  # noqa: S102 - no calls, no attributes
    return names[node.name]


def _annotation(node: ast.expr | None, name: str) -> ast.expr | None:
    if node is None:
        return None
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        node = ast.parse(node.value, mode="eval").body
    for part in ast.walk(node):
        allowed = isinstance(
            part,
            ast.Name | ast.Attribute | ast.Subscript | ast.Constant | ast.Tuple | ast.BinOp | ast.BitOr | ast.Load
            | ast.UnaryOp | ast.USub | ast.keyword,
        )  # fmt: skip
        bound = isinstance(part, ast.Call) and _dotted(part.func).rpartition(".")[2] in _BOUNDS
        if not allowed and not bound:
            raise ParameterError(
                f"The annotation of {name} is {ast.unparse(node)!r}, which is no plain type.",
                f"Use int, float, str, bool, Literal[...] or Annotated[int, Ge(0)] for {name}.",
            )
    bare: ast.expr = _Unqualified().visit(node)
    return bare


class _Unqualified(ast.NodeTransformer):
    """``typing.Literal`` -> ``Literal``: what module a name came from does not matter here."""

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        return ast.Name(id=node.attr, ctx=ast.Load())
