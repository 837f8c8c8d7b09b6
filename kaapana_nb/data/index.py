"""The series table of a batch, and the header rows and problems behind it.

Two depths: `series_table` reads one header per series; `index_sources` reads every header, checks every file and
remembers what it found until the files change.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from kaapana_nb.data.cache import CachedSource, IndexCache, open_cache, pack_rows, unpack_rows
from kaapana_nb.data.header import InstanceHeader
from kaapana_nb.data.progress import Job
from kaapana_nb.data.reader import HeaderReader, Unreadable, read_header
from kaapana_nb.data.scan import FileEntry, fingerprint, list_files, scan_files
from kaapana_nb.data.verdicts import Findings, Problem, check_series
from kaapana_nb.data.walker import HeaderWalker

_FRESH_NS = 2_000_000_000
"""A file changed less than this ago may change again without its times showing it: not remembered."""
_TRIES = 8
_STEP = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesRow:
    """One row of the series table.

    Attributes
    ----------
    name
        The batch element's name.
    files, instances
        Files in the input, and DICOM instances among them (``None`` where only one header was read).
    spacing_mm
        Along columns, rows and slices; ``None`` where not known.
    complete
        Whether the slices are evenly spaced without a gap; ``None`` where not known or no stack.
    problems
        Number of problems; ``None`` where only one header was read.
    """

    name: str
    series_uid: str
    study_uid: str | None = None
    modality: str | None = None
    description: str | None = None
    body_part: str | None = None
    files: int = 0
    instances: int | None = None
    rows: int | None = None
    columns: int | None = None
    spacing_mm: tuple[float | None, float | None, float | None] | None = None
    complete: bool | None = None
    transfer_syntax_uid: str | None = None
    problems: int | None = None


class Source(NamedTuple):
    """A directory of input: one batch element, or (`name` is ``None``) files of several series."""

    name: str | None
    directory: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceIndex:
    """What was found in one directory: its series, its problems, and its header rows on demand."""

    source: Source
    series: tuple[SeriesRow, ...]
    problems: tuple[Problem, ...]
    file_names: tuple[str, ...]
    packed: bytes | None
    headers: tuple[InstanceHeader, ...] | None

    def instances(self) -> tuple[InstanceHeader, ...]:
        """The header rows of all DICOM files, by name; without PatientID where they come from the cache."""
        if self.headers is not None:
            return self.headers
        if self.packed is not None:
            try:
                return tuple(unpack_rows(self.packed, self.source.directory, list(self.file_names)))
            except (ValueError, TypeError, KeyError):
                pass
        names = set(self.file_names)
        entries = [entry for entry in scan_files(self.source.directory) if entry.name in names]
        found = HeaderReader().read(self.source.directory, entries)
        return tuple(result for result in found if isinstance(result, InstanceHeader))


def index_sources(sources: Sequence[Source], cache_dir: Path, *, job: Job | None = None) -> list[SourceIndex]:
    """Read every header of the sources, or take what is remembered of those that have not changed.

    Parameters
    ----------
    cache_dir
        Where the index is remembered: the run's directory.
    """
    job = job or Job()
    cache = open_cache(cache_dir)
    known = set(cache.sources)
    results: list[SourceIndex] = []
    changed = False
    reader = HeaderReader()
    for number, source in enumerate(sources):
        job.step(number, len(sources), "reading headers")
        begin = time.time_ns()
        entries = scan_files(source.directory)
        key, mark = str(source.directory), fingerprint(entries)
        known.discard(key)
        cached = cache.get(key, mark)
        index = None if cached is None else _from_cache(source, entries, cached)
        if index is None:
            index = _examine(source, entries, reader, job)
            changed |= _remember(cache, key, mark, index, entries, begin)
        results.append(index)
    for key in known:
        del cache.sources[key]
    if changed or known:
        cache.save()
    job.step(len(sources), len(sources), "reading headers")
    return results


def series_table(sources: Sequence[Source]) -> list[SeriesRow]:
    """One row per series from one header each: at once, whatever the number of files."""
    rows = []
    walker = HeaderWalker(remember=False)
    for source in sources:
        entries = list_files(source.directory)
        header = next(_some_header(source.directory, entries, walker), None)
        name = source.name or source.directory.name
        if header is None:
            rows.append(SeriesRow(name=name, series_uid=name, files=len(entries)))
            continue
        spacing = header.pixel_spacing
        in_plane = (spacing[1], spacing[0], None) if spacing is not None and len(spacing) == 2 else None
        rows.append(_row(name, header, files=len(entries), spacing_mm=in_plane))
    return rows


def _some_header(directory: Path, names: list[str], walker: HeaderWalker) -> Iterator[InstanceHeader]:
    for name in names[:_TRIES]:
        result = read_header(directory / name, walker)
        if isinstance(result, InstanceHeader):
            yield result


def _row(name: str, header: InstanceHeader, **values: Any) -> SeriesRow:
    return SeriesRow(
        name=name,
        series_uid=header.series_uid or name,
        study_uid=header.study_uid,
        modality=header.modality,
        description=header.series_description,
        body_part=header.body_part,
        rows=header.rows,
        columns=header.columns,
        transfer_syntax_uid=header.transfer_syntax_uid,
        **values,
    )


def _examine(source: Source, entries: list[FileEntry], reader: HeaderReader, job: Job) -> SourceIndex:
    found: list[InstanceHeader | Unreadable] = []
    for result in reader.read(source.directory, entries):
        if len(found) % _STEP == 0:
            job.step(len(found), len(entries), f"reading headers of {source.directory.name}")
        found.append(result)
    headers = tuple(result for result in found if isinstance(result, InstanceHeader))
    problems: list[Problem] = []
    rows: list[SeriesRow] = []
    if source.name is not None:
        findings = check_series(found)
        problems = findings.problems
        rows.append(_summary(source.name, findings, len(headers), len(entries)))
    else:
        groups: dict[str, list[InstanceHeader]] = {}
        for header in headers:
            groups.setdefault(header.series_uid or "", []).append(header)
        strays = [result for result in found if isinstance(result, Unreadable)]
        problems += [problem for problem in check_series(strays).problems if problem.file_name]
        for uid, group in sorted(groups.items()):
            findings = check_series(group)
            problems += findings.problems
            if uid:
                rows.append(_summary(uid, findings, len(group), len(group)))
    return SourceIndex(
        source=source,
        series=tuple(rows),
        problems=tuple(problems),
        file_names=tuple(header.file_name for header in headers),
        packed=None,
        headers=headers,
    )


def _summary(name: str, findings: Findings, instances: int, files: int) -> SeriesRow:
    problems, first, stack, complete = findings
    if first is None:
        return SeriesRow(name=name, series_uid=name, files=files, instances=0, problems=len(problems))
    spacing: tuple[float | None, float | None, float | None] | None = None
    if stack is not None:
        x, y, depth = stack.spacing_mm
        if first.pixel_spacing is not None:
            spacing = (x, y, depth if stack.placed else None)
        elif stack.placed:
            spacing = (None, None, depth)
    return _row(
        name,
        first,
        files=files,
        instances=instances,
        problems=len(problems),
        spacing_mm=spacing,
        complete=complete,
    )


def _remember(
    cache: IndexCache, key: str, mark: str, index: SourceIndex, entries: list[FileEntry], begin_ns: int
) -> bool:
    # A file that changes after the scan gets times that the fingerprint does not have, so it is found out next time.
    newest = max((max(entry.mtime_ns, entry.ctime_ns) for entry in entries), default=0)
    if newest > begin_ns - _FRESH_NS:
        return cache.sources.pop(key, None) is not None
    with_row = set(index.file_names)
    summary = {
        "series": [asdict(row) for row in index.series],
        "problems": [list(problem) for problem in index.problems],
        "without_row": [n for n, entry in enumerate(entries) if entry.name not in with_row],
    }
    cache.sources[key] = CachedSource(mark, summary, pack_rows(list(index.headers or ())))
    return True


def _from_cache(source: Source, entries: list[FileEntry], cached: CachedSource) -> SourceIndex | None:
    try:
        rows = []
        for values in cached.summary["series"]:
            spacing = values.pop("spacing_mm")
            rows.append(SeriesRow(spacing_mm=None if spacing is None else tuple(spacing), **values))
        without = set(cached.summary["without_row"])
        return SourceIndex(
            source=source,
            series=tuple(rows),
            problems=tuple(Problem(*problem) for problem in cached.summary["problems"]),
            file_names=tuple(entry.name for number, entry in enumerate(entries) if number not in without),
            packed=cached.rows,
            headers=None,
        )
    except (TypeError, KeyError, ValueError):
        return None


class LocatedProblem(NamedTuple):
    """A problem with the path it concerns: a file, or the directory of a series."""

    path: Path
    problem: str
    remedy: str
    severity: str


def located_problems(indexes: Sequence[SourceIndex]) -> list[LocatedProblem]:
    """The problems of several directories, with paths."""
    return [
        LocatedProblem(index.source.directory / problem.file_name, problem.problem, problem.remedy, problem.severity)
        for index in indexes
        for problem in index.problems
    ]
