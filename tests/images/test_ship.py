"""The whole line on the sample batch, with a real registry and real containers where they can be had."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from kaapana_nb.clients.containers import Mount, find_runner
from kaapana_nb.contract.profiles import profile
from kaapana_nb.data.batch import Batch
from kaapana_nb.emulator.registry import LocalRegistry
from kaapana_nb.errors import ParityError, PrivacyError
from kaapana_nb.reference import ImageReference
from kaapana_nb.settings import Settings
from kaapana_nb.ship.base_image import ensure_base_image
from kaapana_nb.ship.build import build_image, registry_client
from kaapana_nb.ship.export import export_notebook, write_extension
from kaapana_nb.ship.ship import Destination, ship_notebook
from kaapana_nb.ship.verify import read_export, verify_image

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.images
ROOT = Path(__file__).parents[2]

DIFFERS = """
import sys
from kaapana_nb import Batch, BatchElement, algorithm, run

@algorithm
def where_am_i(element: BatchElement) -> dict:
    return {"prefix": sys.prefix, "same": 1}

run(where_am_i, Batch.from_environ())
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """This machine's settings, so that wheels and base image are made once; own workspace and registry."""
    mine = Settings.from_environ()
    ensure_base_image(mine)
    return Settings(home=mine.home, workspace=tmp_path_factory.mktemp("workspace"), jobs=mine.jobs)


@pytest.fixture
def small(sample_run: Path, tmp_path: Path) -> Batch:
    """A copy of the two smallest series."""
    run = tmp_path / "run"
    sizes = sorted((sum(1 for _ in d.rglob("*.dcm")), d) for d in (sample_run / "batch").iterdir())
    for _, directory in sizes[:2]:
        shutil.copytree(directory, run / "batch" / directory.name)
    return Batch.open(run)


@contextlib.contextmanager
def quiet(title: str) -> Iterator[object]:
    yield lambda line: print(f"{title}: {line}")


@pytest.mark.skipif(shutil.which("docker-registry") is None, reason="docker-registry is not installed")
@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
def test_a_notebook_becomes_a_verified_pushed_image(machine: Settings, small: Batch, tmp_path: Path) -> None:
    reference_name = ImageReference(repository="mine/otsus-method", tag="0.1.0")
    with LocalRegistry(tmp_path / "registry") as registry:
        reference = ImageReference(registry=registry.host, repository=reference_name.repository, tag="0.1.0")
        with contextlib.closing(
            registry_client(registry.host, reference.repository, credentials=registry.credentials)
        ) as client:
            shipped = ship_notebook(
                ROOT / "notebooks" / "otsus_method.ipynb",
                small,
                tmp_path / "export",
                Destination(reference=reference, client=client),
                profile=profile(),
                settings=machine,
                step=quiet,  # type: ignore[arg-type]
            )
        login = f"{registry.credentials.username}:{registry.credentials.password}"
        command = ["skopeo", "inspect", "--tls-verify=false", "--creds", login, f"docker://{reference}"]
        seen = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert seen["Digest"] == shipped.image.digest == shipped.image.reference.digest
    assert seen["Labels"]["IMAGE"] == "otsus-method"
    assert shipped.parity.equal
    assert len(shipped.parity.elements) == 2
    text = (tmp_path / "export" / "parity.json").read_text()
    proof = json.loads(text)
    assert proof["equal"]
    assert proof["image"] == shipped.image.digest
    assert [row["element"] for row in proof["elements"]] == ["series 1", "series 2"]
    assert not any(element.name in text for element in small)
    readme = tmp_path / "export" / "extension" / "otsus-method-workflow" / "README.md"
    assert shipped.image.digest in readme.read_text()
    write_extension(shipped.extension, tmp_path / "export")  # no edit of a user's: it goes without --force
    assert not (tmp_path / "export" / "parity.json").exists()


def test_a_difference_is_found_and_says_where(machine: Settings, small: Batch, tmp_path: Path) -> None:
    path = tmp_path / "where_am_i.ipynb"
    path.write_text(nbformat.writes(new_notebook(cells=[new_code_cell(DIFFERS)])))
    with pytest.raises(ParityError, match="differ in 2 of 2 outputs"):
        ship_notebook(
            path,
            small,
            tmp_path / "export",
            Destination(archive=tmp_path / "image.tar"),
            profile=profile(),
            settings=machine,
            step=quiet,  # type: ignore[arg-type]
        )
    assert not (tmp_path / "image.tar").exists()
    lines: list[str] = []
    runner = find_runner(machine, lines.append)
    exported = read_export(tmp_path / "export")
    image = build_image(exported.context, settings=machine)
    report = verify_image(exported, image, small, profile=profile(), runner=runner, log=lines.append)
    assert [row.equal for row in report.elements] == [False, False]
    assert all("prefix" in row.difference and "same" not in row.difference for row in report.elements)


def test_a_cell_that_needs_this_session_fails_in_the_container(machine: Settings, small: Batch, tmp_path: Path) -> None:
    source = DIFFERS.replace("import sys", f"import sys\nassert sys.prefix == {sys.prefix!r}, 'elsewhere'")
    path = tmp_path / "where_am_i.ipynb"
    path.write_text(nbformat.writes(new_notebook(cells=[new_code_cell(source)])))
    write_extension(export_notebook(path, profile()), tmp_path / "export")
    exported = read_export(tmp_path / "export")
    image = build_image(exported.context, settings=machine)
    runner = find_runner(machine, lambda _: None)
    if runner.name == "process":
        pytest.skip("without podman the container runs on this session's own Python")
    with pytest.raises(ParityError, match="elsewhere"):
        verify_image(exported, image, small, profile=profile(), runner=runner, log=lambda _: None)


def test_a_name_in_the_notebook_stops_the_line_before_anything_is_written(
    machine: Settings, small: Batch, tmp_path: Path
) -> None:
    import pydicom

    name = str(pydicom.dcmread(small[0].files()[0], stop_before_pixels=True).PatientName).split("^")[0]
    path = tmp_path / "where_am_i.ipynb"
    path.write_text(nbformat.writes(new_notebook(cells=[new_code_cell(f"# looks odd for {name}\n{DIFFERS}")])))
    with pytest.raises(PrivacyError) as caught:
        ship_notebook(
            path,
            small,
            tmp_path / "export",
            Destination(archive=tmp_path / "image.tar"),
            profile=profile(),
            settings=machine,
            step=quiet,  # type: ignore[arg-type]
        )
    assert name not in caught.value.problem
    assert "where_am_i.ipynb" in caught.value.problem
    assert not (tmp_path / "export").exists()


def test_the_tour(tmp_path: Path) -> None:
    environ = {**os.environ, "KAAPANA_NB_WORKSPACE": str(tmp_path / "workspace")}
    command = [sys.executable, "-m", "kaapana_nb", "tour"]
    result = subprocess.run(command, capture_output=True, text=True, env=environ, cwd=tmp_path, timeout=280)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "6 of 6 succeeded" in result.stdout
    assert "6 of 6 outputs are equal" in result.stdout
    if shutil.which("docker-registry") and shutil.which("skopeo"):
        digest = result.stdout.rpartition("otsus-method:0.1.0@")[2].split()[0]
        assert result.stdout.count(digest) >= 3  # the build, skopeo, the last line
    assert "password" not in result.stderr


def test_a_script_export_gives_what_the_notebook_gives(machine: Settings, small: Batch, tmp_path: Path) -> None:
    shipped = ship_notebook(
        ROOT / "notebooks" / "otsus_method.ipynb",
        small,
        tmp_path / "export",
        Destination(archive=tmp_path / "image.tar"),
        profile=profile("0.1"),
        settings=machine,
        step=quiet,  # type: ignore[arg-type]
        script=True,
    )
    assert shipped.parity.equal
    assert [row.output.endswith(".nrrd") for row in shipped.parity.elements] == [True, True]
    assert (tmp_path / "export" / "processing-containers" / "otsus-method" / "files" / "otsus_method.py").is_file()


def test_a_script_with_its_own_loop_is_verified_too(machine: Settings, small: Batch, tmp_path: Path) -> None:
    path = tmp_path / "count_files.py"
    path.write_text(
        "import os\nfrom pathlib import Path\nrun = Path('/', os.environ['WORKFLOW_DIR'])\n"
        "for element in (run / os.environ['BATCH_NAME']).iterdir():\n"
        "    out = element / os.environ['OPERATOR_OUT_DIR']\n    out.mkdir(exist_ok=True)\n"
        "    files = list((element / 'get-input-data').iterdir())\n"
        "    (out / f'{element.name}.json').write_text(str(len(files)))\n"
    )
    shipped = ship_notebook(
        path,
        small,
        tmp_path / "export",
        Destination(archive=tmp_path / "image.tar"),
        profile=profile(),
        settings=machine,
        step=quiet,  # type: ignore[arg-type]
    )
    assert [row.output for row in shipped.parity.elements] == [f"{element.name}.json" for element in small]


def test_a_container_ends_with_the_platforms_codes(machine: Settings, small: Batch, tmp_path: Path) -> None:
    write_extension(export_notebook(ROOT / "notebooks" / "otsus_method.ipynb", profile()), tmp_path / "export")
    image = build_image(read_export(tmp_path / "export").context, settings=machine)
    runner = find_runner(machine, lambda _: None)
    empty = tmp_path / "empty"
    (empty / "batch").mkdir(parents=True)
    for path in small[1].files():
        path.write_bytes(b"no DICOM")
    codes = []
    for run in (empty, small.run_dir):
        for path in [run, *run.rglob("*")]:
            path.chmod(0o777 if path.is_dir() else 0o666)
        mount = Mount(source=run, target="/kaapana/mounted/data/r", read_only=False)
        environ = {"WORKFLOW_DIR": "/kaapana/mounted/data/r", "BATCH_NAME": "batch", "OPERATOR_OUT_DIR": "out"}
        result = runner.run(image.layout, environ=environ, mounts=[mount], timeout_s=200, log=lambda _: None)
        codes.append(result.exit_code)
    assert codes == [126, 1]
    assert (small[0].element_dir / "out" / f"{small[0].name}.nrrd").is_file()
    assert not (small[1].element_dir / "out" / f"{small[1].name}.nrrd").exists()
