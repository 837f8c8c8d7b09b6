"""Dockerfiles as values: the subset that an exported processing container uses.

The Dockerfile is the one description of an image: the layers builder reads it here, buildah and
docker read the same file. What this module does not know it refuses, naming the builder that can.
Source: Docker's Dockerfile reference.
"""

from __future__ import annotations

import json
import posixpath
import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kaapana_nb.errors import BuildError
from kaapana_nb.reference import ImageReference

if TYPE_CHECKING:
    from pathlib import Path

MAX_DOCKERFILE = 256 * 1024
OTHER_BUILDER = "Build with `--builder buildah`, which runs any Dockerfile."


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """``COPY sources target``: paths in the context, an absolute path in the image."""

    sources: tuple[str, ...]
    target: str
    into_directory: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PipInstall:
    """The one RUN line: ``python3 -m pip install --no-deps --no-compile --target DIR -r FILE``."""

    requirements: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkDir:
    """``WORKDIR``: the directory exists from here on."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLine:
    """Any other RUN line, with what holds at that point: environment, directory, user."""

    command: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    working_dir: str
    user: str


Step = Copy | PipInstall | WorkDir | RunLine


@dataclass(frozen=True, slots=True, kw_only=True)
class Dockerfile:
    """A parsed Dockerfile.

    Attributes
    ----------
    steps
        What changes files, in order, each with its source text.
    refusal
        The first line that the layers builder does not know, as an error: only builders that run lines can go on.
    only_runs
        Whether RUN lines are all that it does not know.
    """

    base: ImageReference
    steps: tuple[tuple[str, Step], ...]
    env: dict[str, str]
    labels: dict[str, str]
    working_dir: str
    user: str
    entrypoint: tuple[str, ...] | None
    cmd: tuple[str, ...] | None
    exposed_ports: tuple[str, ...]
    healthcheck: dict[str, object] | None
    refusal: BuildError | None = None
    only_runs: bool = True


def read_dockerfile(context: Path, *, lenient: bool = False) -> Dockerfile:
    """Parse ``<context>/Dockerfile``.

    Parameters
    ----------
    lenient
        Note the first unknown line in ``refusal`` and read on.

    Raises
    ------
    BuildError
        When there is none, it has no FROM line, or it has a line that the layers builder does not know.
    """
    path = context / "Dockerfile"
    try:
        with path.open("rb") as file:
            data = file.read(MAX_DOCKERFILE + 1)
    except OSError as error:
        raise BuildError(
            f"{context} has no readable Dockerfile ({error.strerror}).",
            "Name a directory that `kaapana-nb export` wrote.",
        ) from None
    if len(data) > MAX_DOCKERFILE:
        raise BuildError(f"{path} is larger than {MAX_DOCKERFILE} bytes.", OTHER_BUILDER)
    try:
        return parse_dockerfile(data.decode(), lenient=lenient)
    except UnicodeDecodeError:
        raise BuildError(f"{path} is no UTF-8 text.", "Export the notebook again.") from None


def parse_dockerfile(text: str, *, lenient: bool = False) -> Dockerfile:
    """Parse a Dockerfile's text."""
    parser = _Parser()
    refusal: BuildError | None = None
    only_runs = True
    for number, line in _logical_lines(text):
        try:
            _read_line(parser, number, line)
        except BuildError as error:
            if not lenient:
                raise
            refusal = refusal or error
            if line[:4].upper() == "RUN " and parser.base is not None:
                parser.keep_run(line)
            else:
                only_runs = False
    return parser.result(refusal, only_runs)


def _read_line(parser: _Parser, number: int, line: str) -> None:
    keyword, _, rest = line.partition(" ")
    handler = _HANDLERS.get(keyword.upper())
    if handler is None:
        raise BuildError(
            f"Dockerfile line {number} is {line!r:.120}; the layers builder does not know {keyword.upper()!r:.40}.",
            OTHER_BUILDER,
        )
    if parser.base is None and keyword.upper() != "FROM":
        raise BuildError(f"Dockerfile line {number} is {line!r:.120}; FROM was expected first.", "Add a FROM line.")
    handler(parser, rest.strip(), _Line(number, line))


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    text: str

    def refuse(self, expected: str) -> BuildError:
        return BuildError(f"Dockerfile line {self.number} is {self.text!r:.160}; {expected}.", OTHER_BUILDER)


def _logical_lines(text: str) -> list[tuple[int, str]]:
    lines: list[tuple[int, str]] = []
    start, pending = 0, ""
    for number, raw in enumerate(text.splitlines(), 1):
        stripped = raw.strip()
        if not stripped or stripped.startswith("#"):
            if re.match(r"#\s*(escape|syntax)\s*=", stripped):
                lines.append((number, stripped))
            continue
        start = start or number
        if stripped.endswith("\\"):
            pending += stripped[:-1].rstrip() + " "
            continue
        lines.append((start, pending + stripped))
        start, pending = 0, ""
    if pending:
        raise BuildError(f"Dockerfile line {start} has no end: the last line ends with a backslash.", OTHER_BUILDER)
    return lines


class _Parser:
    def __init__(self) -> None:
        self.base: ImageReference | None = None
        self.steps: list[tuple[str, Step]] = []
        self.env: dict[str, str] = {}
        self.labels: dict[str, str] = {}
        self.working_dir, self.user = "/", ""
        self.entrypoint: tuple[str, ...] | None = None
        self.cmd: tuple[str, ...] | None = None
        self.ports: list[str] = []
        self.healthcheck: dict[str, object] | None = None

    def result(self, refusal: BuildError | None, only_runs: bool) -> Dockerfile:
        if self.base is None:
            raise refusal or BuildError("The Dockerfile has no FROM line.", "Export the notebook again.")
        return Dockerfile(
            base=self.base, steps=tuple(self.steps), env=self.env, labels=self.labels, working_dir=self.working_dir,
            user=self.user, entrypoint=self.entrypoint, cmd=self.cmd, exposed_ports=tuple(self.ports),
            healthcheck=self.healthcheck, refusal=refusal, only_runs=only_runs,
        )  # fmt: skip

    def absolute(self, path: str) -> str:
        return posixpath.normpath(posixpath.join(self.working_dir, path))

    def from_(self, rest: str, line: _Line) -> None:
        if self.base is not None or len(rest.split()) != 1 or rest.startswith("-"):
            raise line.refuse("one FROM line with one image was expected")
        self.base = ImageReference.parse(rest)

    def env_(self, rest: str, line: _Line) -> None:
        self.env.update(_pairs(rest, line))

    def label(self, rest: str, line: _Line) -> None:
        self.labels.update(_pairs(rest, line))

    def workdir(self, rest: str, line: _Line) -> None:
        words = _words(rest, line)
        if len(words) != 1:
            raise line.refuse("one directory was expected")
        self.working_dir = self.absolute(words[0])
        self.steps.append((line.text, WorkDir(path=self.working_dir)))

    def copy(self, rest: str, line: _Line) -> None:
        words = _exec_form(rest, line) if rest.startswith("[") else tuple(_words(rest, line))
        if len(words) < 2 or any(word.startswith("--") for word in words):
            raise line.refuse("COPY without options, with a source and a target, was expected")
        for source in words[:-1]:
            parts = source.split("/")
            if source.startswith("/") or ".." in parts or re.search(r"[*?\[\\]", source):
                raise line.refuse("plain paths inside the context were expected as sources")
        into = words[-1].endswith("/") or words[-1] in {".", ".."} or len(words) > 2
        copy = Copy(sources=words[:-1], target=self.absolute(words[-1]), into_directory=into)
        self.steps.append((line.text, copy))

    def run(self, rest: str, line: _Line) -> None:
        expected = (
            "only `RUN python3 -m pip install --no-cache-dir --no-compile --no-deps --target DIR -r FILE` was expected"
        )
        words = _words(rest, line) if not rest.startswith("[") else list(_exec_form(rest, line))
        if words[:4] not in (["python3", "-m", "pip", "install"], ["python", "-m", "pip", "install"]):
            raise line.refuse(expected)
        options: dict[str, str] = {}
        position = 4
        while position < len(words):
            word = words[position]
            if word in {"--target", "-r"} and position + 1 < len(words) and word not in options:
                options[word] = words[position + 1]
                position += 2
            elif word in {"--no-cache-dir", "--no-compile", "--no-deps"}:
                options[word] = ""
                position += 1
            else:
                raise line.refuse(expected)
        if not {"--target", "-r", "--no-compile", "--no-deps"} <= options.keys():
            raise line.refuse(expected)
        install = PipInstall(requirements=self.absolute(options["-r"]), target=self.absolute(options["--target"]))
        self.steps.append((line.text, install))

    def keep_run(self, line: str) -> None:
        """Note a RUN line that only other builders can run: the shell form, or the exec form."""
        rest = line[4:].strip()
        try:
            words = json.loads(rest) if rest.startswith("[") else None
        except ValueError:
            words = None
        exec_form = isinstance(words, list) and words and all(isinstance(word, str) for word in words)
        command = tuple(words) if exec_form and words else ("/bin/sh", "-c", rest)
        run = RunLine(command=command, env=tuple(self.env.items()), working_dir=self.working_dir, user=self.user)
        self.steps.append((line, run))

    def user_(self, rest: str, line: _Line) -> None:
        if re.fullmatch(r"[A-Za-z0-9_.-]+(:[A-Za-z0-9_.-]+)?", rest) is None:
            raise line.refuse("a user name or number was expected")
        self.user = rest

    def cmd_(self, rest: str, line: _Line) -> None:
        self.cmd = _exec_form(rest, line)

    def entrypoint_(self, rest: str, line: _Line) -> None:
        self.entrypoint = _exec_form(rest, line)

    def expose(self, rest: str, line: _Line) -> None:
        for port in rest.split():
            if re.fullmatch(r"[0-9]{1,5}(/(tcp|udp))?", port) is None:
                raise line.refuse("port numbers were expected")
            self.ports.append(port if "/" in port else f"{port}/tcp")

    def health(self, rest: str, line: _Line) -> None:
        options = dict(re.findall(r"--(interval|timeout|start-period|retries)=([0-9]+)s?(?=\s)", rest))
        match = re.fullmatch(r"(?:--[a-z-]+=[0-9]+s?\s+)*CMD\s+(\[.*\])", rest)
        if match is None:
            raise line.refuse("HEALTHCHECK with times in seconds and CMD in exec form was expected")
        check: dict[str, object] = {"Test": ["CMD", *_exec_form(match[1], line)]}
        for option, key in (("interval", "Interval"), ("timeout", "Timeout"), ("start-period", "StartPeriod")):
            if option in options:
                check[key] = int(options[option]) * 1_000_000_000
        if "retries" in options:
            check["Retries"] = int(options["retries"])
        self.healthcheck = check


_HANDLERS = {
    "FROM": _Parser.from_, "ENV": _Parser.env_, "LABEL": _Parser.label, "WORKDIR": _Parser.workdir,
    "COPY": _Parser.copy, "RUN": _Parser.run, "USER": _Parser.user_, "CMD": _Parser.cmd_,
    "ENTRYPOINT": _Parser.entrypoint_, "EXPOSE": _Parser.expose, "HEALTHCHECK": _Parser.health,
}  # fmt: skip


def _words(text: str, line: _Line) -> list[str]:
    if "$" in text:
        raise line.refuse("text without variables was expected")
    if re.search(r"[;&|<>`]", text):
        raise line.refuse("one plain command was expected")
    try:
        return shlex.split(text)
    except ValueError as error:
        raise line.refuse(f"balanced quotes were expected ({error})") from None


def _pairs(text: str, line: _Line) -> dict[str, str]:
    if re.search(r"(?<!\\)\$", text):
        raise line.refuse("text without variables was expected")
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise line.refuse(f"balanced quotes were expected ({error})") from None
    pairs = [word.partition("=") for word in words]
    if not pairs or not all(name and equals for name, equals, _ in pairs):
        raise line.refuse("NAME=value was expected")
    return {name: value.replace("\\$", "$") for name, _, value in pairs}


def _exec_form(text: str, line: _Line) -> tuple[str, ...]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, list) or not value or not all(isinstance(word, str) for word in value):
        raise line.refuse('the exec form ["program", "argument"] was expected')
    return tuple(value)
