"""Benchmarks of the data layer against pydicom and SimpleITK: ratios of one run, on data that is made here.

    python tests/bench/bench_data.py            all of it; writes docs/performance.svg and prints the tables
    python tests/bench/bench_data.py --quick    a tenth of the data, to see that it runs

Exit code 1 when a target of `TARGETS` is missed. Each pair is timed in turn, so that a busy machine slows both.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from chart import line_chart

from kaapana_nb.data import index as index_module
from kaapana_nb.data.batch import Batch
from kaapana_nb.data.convert import convert_series
from kaapana_nb.data.header import header_from_dataset
from kaapana_nb.data.index import Source, index_sources, series_table
from kaapana_nb.data.reader import read_headers
from kaapana_nb.data.scan import CACHE_NAME
from kaapana_nb.data.series import read_series
from kaapana_nb.settings import Settings

HERE = Path(__file__).parent
CHART = HERE.parent.parent / "docs" / "performance.svg"

TARGETS: dict[str, float] = {
    "index, warm": 20,
    "index, cold": 15,
    "volume": 8,
    "convert": 3,
    "headers, implicit VR": 1,
    "headers, deflated": 1,
    "volume, RLE": 1,
}
"""How many times faster than the other at least."""
LIMITS_S = {"series table of 100 series": 0.05, "second index from the cache": 0.1}
MEMORY_LIMIT = 1.3
"""Peak memory of reading a volume, in times of the array."""


@dataclass
class Pair:
    """Times of ours and of the other, seconds."""

    name: str
    what: str
    other: str
    ours_s: list[float] = field(default_factory=list)
    other_s: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        return statistics.median(self.other_s) / statistics.median(self.ours_s)

    @property
    def ratios(self) -> list[float]:
        return [theirs / ours for ours, theirs in zip(self.ours_s, self.other_s, strict=True)]


def timed(function: Callable[[], object]) -> float:
    begin = time.perf_counter()
    result = function()
    elapsed = time.perf_counter() - begin
    del result
    return elapsed


def compare(
    name: str,
    what: str,
    other: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    *,
    rounds: int,
    before=None,
) -> Pair:
    pair = Pair(name, what, other)
    for _ in range(rounds):
        for function, times in ((ours, pair.ours_s), (theirs, pair.other_s)):
            if before is not None:
                before()
            times.append(timed(function))
    print(f"  {name}: {pair.ratio:.1f} times ({min(pair.ratios):.1f} to {max(pair.ratios):.1f})", file=sys.stderr)
    return pair


def generate(directory: Path, *options: str) -> Path:
    """A run made by the generator; kept if it is there already."""
    if not directory.exists():
        partial = directory.with_name(directory.name + ".part")
        shutil.rmtree(partial, ignore_errors=True)
        subprocess.run([sys.executable, HERE / "make_batch.py", partial, *options], check=True, stdout=sys.stderr)
        partial.rename(directory)
    return next(path for path in directory.iterdir() if (path / "batch").is_dir())


def sources_of(run: Path, count: int | None = None) -> list[Source]:
    directories = sorted((run / "batch").iterdir())[:count]
    return [Source(path.name, path / "initial-input") for path in directories]


def files_of(sources: list[Source]) -> list[Path]:
    return [path for source in sources for path in sorted(source.directory.iterdir())]


def fresh_index(run: Path, sources: list[Source]) -> Callable[[], object]:
    def index() -> object:
        (run / CACHE_NAME).unlink(missing_ok=True)
        return index_sources(sources, run)

    return index


def by_pydicom(files: list[Path]) -> list[object]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [header_from_dataset(pydicom.dcmread(path, stop_before_pixels=True), path, 0) for path in files]


def forget(files: list[Path]) -> None:
    """Drop the files from the page cache."""
    for path in files:
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def with_simpleitk(directory: Path) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(directory)))
    return reader.Execute()


def with_pydicom(directory: Path) -> np.ndarray:
    datasets = [pydicom.dcmread(path) for path in directory.iterdir()]
    datasets.sort(key=lambda dataset: dataset.ImagePositionPatient[2])
    return np.stack([dataset.pixel_array for dataset in datasets])


def peak_memory(directory: Path) -> float:
    """Peak memory of reading the volume in a process of its own, in times of the array."""
    code = (
        "import sys; from pathlib import Path\n"
        "import numpy, imagecodecs\n"
        "from kaapana_nb.data.reader import read_headers; from kaapana_nb.data.series import open_series\n"
        "source = open_series(read_headers(sorted(Path(sys.argv[1]).iterdir())))\n"
        "def peak():\n"
        "    return int(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])\n"
        "before = peak()\n"
        "volume = source.read()\n"
        "print((peak() - before) * 1024 / volume.array.nbytes)\n"
    )
    return float(subprocess.run([sys.executable, "-c", code, str(directory)], check=True, capture_output=True).stdout)


def header_pairs(work: Path, rounds: int, scale: int) -> Iterator[tuple[Pair, int]]:
    """The index against pydicom at three sizes; the last is the one that counts."""
    run = generate(work / f"many-{scale}", "--series", str(100 // scale), "--slices", "200", "--size", "64")
    for series in (5, 50, 100):
        sources = sources_of(run, max(1, series // scale))
        files = files_of(sources)
        name = "index, warm" if series == 100 else f"index, warm, {len(files)}"
        pair = compare(
            name,
            f"every header of {len(files)} instances in {len(sources)} series, verdicts and geometry included",
            "pydicom, stop_before_pixels, the same 26 values",
            fresh_index(run, sources),
            lambda files=files: by_pydicom(files),
            rounds=rounds,
        )
        yield pair, len(files)


def alone(run: Path, rounds: int) -> dict[str, list[float]]:
    """What has no other to compare with."""
    sources = sources_of(run)
    index_sources(sources, run)
    return {
        f"series table of {len(sources)} series": [timed(lambda: series_table(sources)) for _ in range(rounds)],
        "second index from the cache": [timed(lambda: index_sources(sources, run)) for _ in range(rounds)],
    }


def other_pairs(work: Path, rounds: int, scale: int) -> Iterator[Pair]:
    cold = generate(work / f"cold-{scale}", "--series", str(max(1, 10 // scale)), "--slices", "200", "--size", "512")
    sources = sources_of(cold)
    files = files_of(sources)
    yield compare(
        "index, cold",
        f"the same of {len(files)} instances of 512 x 512 that are not in the page cache",
        "pydicom, stop_before_pixels",
        fresh_index(cold, sources),
        lambda: by_pydicom(files),
        rounds=rounds,
        before=lambda: forget(files),
    )
    element = Batch.open(cold)[0]
    yield compare(
        "volume",
        "one series of 200 x 512 x 512 as an array, headers included",
        "SimpleITK, ImageSeriesReader",
        element.volume,
        lambda: with_simpleitk(element.input_dir),
        rounds=3 * rounds,
    )
    yield compare(
        "volume, pydicom",
        "the same",
        "pydicom, pixel_array stacked",
        element.volume,
        lambda: with_pydicom(element.input_dir),
        rounds=rounds,
    )
    yield compare(
        "image",
        "the same as a SimpleITK image in HU",
        "SimpleITK, ImageSeriesReader",
        element.image,
        lambda: with_simpleitk(element.input_dir),
        rounds=2 * rounds,
    )
    target = work / "out.nrrd"
    yield compare(
        "convert",
        "the same to compressed NRRD on disk (fsync included in ours alone)",
        "SimpleITK, ImageSeriesReader and WriteImage",
        lambda: convert_series(element.source(), target),
        lambda: sitk.WriteImage(with_simpleitk(element.input_dir), str(target), True),
        rounds=rounds,
    )
    plain = generate(work / "implicit", "--series", "1", "--slices", "200", "--size", "64", "--syntax", "implicit")
    implicit = files_of(sources_of(plain))
    yield compare(
        "headers, implicit VR",
        "every header of 200 instances",
        "pydicom",
        lambda: read_headers(implicit),
        lambda: by_pydicom(implicit),
        rounds=rounds,
    )
    packed = deflate(implicit, work / "deflated")
    yield compare(
        "headers, deflated",
        "every header of 200 instances",
        "pydicom",
        lambda: read_headers(packed),
        lambda: by_pydicom(packed),
        rounds=rounds,
    )
    rle = generate(work / "rle", "--series", "1", "--slices", "40", "--size", "512", "--syntax", "rle")
    (source,) = sources_of(rle)
    yield compare(
        "volume, RLE",
        "one series of 40 x 512 x 512, RLE lossless",
        "pydicom",
        lambda: read_series(read_headers(files_of([source]))),
        lambda: with_pydicom(source.directory),
        rounds=rounds,
    )


def deflate(files: list[Path], directory: Path) -> list[Path]:
    directory.mkdir(exist_ok=True)
    made = []
    for path in files:
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
        made.append(directory / path.name)
        dataset.save_as(made[-1], implicit_vr=False, little_endian=True, force_encoding=True)
    return made


def report(pairs: list[Pair], lone: dict[str, list[float]], memory: float) -> tuple[str, list[str]]:
    """The tables in Markdown, and the targets that were missed."""
    missed = []
    lines = ["| what | ours, s | other, s | times faster | spread | target |", "| --- | --- | --- | --- | --- | --- |"]
    for pair in pairs:
        target = TARGETS.get(pair.name)
        if target is not None and pair.ratio < target:
            missed.append(f"{pair.name}: {pair.ratio:.1f} times faster, {target:g} was the target")
        lines.append(
            f"| {pair.name}: {pair.what} | {statistics.median(pair.ours_s):.3f} | "
            f"{statistics.median(pair.other_s):.3f} ({pair.other}) | {pair.ratio:.1f} | "
            f"{min(pair.ratios):.1f} to {max(pair.ratios):.1f} | {'' if target is None else f'{target:g}'} |"
        )
    lines += ["", "| what | seconds | spread | limit |", "| --- | --- | --- | --- |"]
    for name, times in lone.items():
        middle, limit = statistics.median(times), LIMITS_S.get(name)
        if limit is not None and middle > limit:
            missed.append(f"{name}: {middle:.3f} s, {limit:g} s was the limit")
        lines.append(
            f"| {name} | {middle:.3f} | {min(times):.3f} to {max(times):.3f} | {'' if limit is None else limit} |"
        )
    if memory > MEMORY_LIMIT:
        missed.append(f"peak memory {memory:.2f} times the array, {MEMORY_LIMIT} was the limit")
    lines += ["", f"Peak memory of reading the volume: {memory:.2f} times the array (limit {MEMORY_LIMIT})."]
    return "\n".join(lines), missed


def machine() -> str:
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    versions = (
        f"Python {platform.python_version()}, pydicom {pydicom.__version__}, SimpleITK {sitk.Version.VersionString()}"
    )
    load = os.getloadavg()[0]
    return (
        f"{len(os.sched_getaffinity(0))} CPUs ({model.partition(':')[2].strip()}), {versions}, numpy {np.__version__}; "
        f"load average at the end {load:.1f}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work",
        type=Path,
        default=Settings.from_environ().home / "bench",
        help="where the data is made (about 1.5 GB), and kept for the next run; default: %(default)s",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a tenth of the data; the chart is not written")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    scale = 10 if args.quick else 1
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    index_module._FRESH_NS = 0  # the generator has only just written the files
    sized = list(header_pairs(args.work, args.rounds, scale))
    run = generate(args.work / f"many-{scale}")
    lone = alone(run, args.rounds)
    pairs = [pair for pair, _ in sized] + list(other_pairs(args.work, args.rounds, scale))
    cold = generate(args.work / f"cold-{scale}")
    text, missed = report(pairs, lone, peak_memory(Batch.open(cold)[0].input_dir))
    print(f"{machine()}\n\n{text}")
    points = {
        "pydicom": [(count, statistics.median(pair.other_s)) for pair, count in sized],
        "kaapana-nb": [(count, statistics.median(pair.ours_s)) for pair, count in sized],
    }
    print(json.dumps(points), file=sys.stderr)
    if not args.quick:
        CHART.write_text(line_chart(points, x_title="instances", y_title="seconds to read every header"))
    for line in missed:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
