"""The other builders give the same image as layers, and one is chosen for reasons that are said."""

from __future__ import annotations

import ast
import csv
import json
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from kaapana_nb.clients.layout import OciLayout
from kaapana_nb.clients.podman import engine_environ
from kaapana_nb.errors import BuildError, UsageError
from kaapana_nb.reference import ImageReference
from kaapana_nb.settings import Settings
from kaapana_nb.ship.build import BuiltImage, build_image, push_image, push_target
from kaapana_nb.ship.docker_builder import DockerBuilder
from kaapana_nb.ship.engine_builder import EngineBuilder
from kaapana_nb.ship.proot_builder import ProotBuilder, unpack_tree

pytestmark = pytest.mark.images

APP = """
import json, os, sys
import large, own, small
print(json.dumps({"value": small.VALUE, "own": own.NAME, "path": sys.path[1:], "cwd": os.getcwd(),
                  "env": {name: os.environ[name] for name in sorted(os.environ) if name != "HOSTNAME"}}))
"""


@pytest.fixture(scope="module", params=["buildah", "podman"])
def engine(request: pytest.FixtureRequest, image_home: Settings) -> str:
    reason = EngineBuilder(request.param, image_home.containers_dir).unusable()
    if reason:
        pytest.skip(f"{request.param} cannot build here: {reason}")
    return str(request.param)


@pytest.fixture(scope="module", autouse=True)
def clean_storage(image_home: Settings):
    yield
    if shutil.which("podman"):
        from kaapana_nb.clients.podman import PodmanRunner

        PodmanRunner(image_home.containers_dir).remove_storage()


Tree = dict[str, tuple[str, int, int, int, object]]


def tree(image: BuiltImage) -> Tree:
    """Path -> kind, mode, owner and content of the image's files, all layers applied."""
    layout = OciLayout(image.layout)
    files: Tree = {}
    for layer in layout.image().manifest.layers:
        with tarfile.open(layout.blob_path(layer.digest)) as archive:
            for member in archive:
                name = member.name.strip("/").removeprefix("./")
                assert not Path(name).name.startswith(".wh.")
                if member.islnk():
                    files[name] = files[member.linkname.strip("/")]
                    continue
                content: object = member.linkname
                if member.isfile():
                    opened = archive.extractfile(member)
                    assert opened is not None
                    content = opened.read()
                if name not in ("", "."):
                    files[name] = (member.type.decode(), member.mode & 0o7777, member.uid, member.gid, content)
    return files


def meaning(path: str, entry: tuple[str, int, int, int, object]) -> object:
    """What a generated file says: launchers differ in wording between pip's and PyPA's templates."""
    content = entry[4]
    if isinstance(content, bytes) and path.startswith("kaapana/packages/bin/"):
        first, _, code = content.partition(b"\n")
        assert first in (b"#!/usr/bin/env python3", b"#!/opt/python/bin/python3")
        return (*entry[:4], ast.dump(ast.parse(code)))
    if isinstance(content, bytes) and path.endswith(".dist-info/RECORD"):
        rows = csv.reader(content.decode().splitlines())
        return (*entry[:4], sorted(row[:1] if row[0].startswith("../../bin/") else row for row in rows))
    return entry


def test_the_same_files_config_and_output(engine, image_home, wheelhouse, make_context, podman):
    context = make_context("same-tool", APP)
    ours = build_image(context, settings=image_home, wheelhouse=wheelhouse, builder="layers", tag="ours")
    theirs = build_image(context, settings=image_home, wheelhouse=wheelhouse, builder=engine, tag="theirs")
    assert theirs.builder == engine
    left, right = tree(ours), tree(theirs)
    assert sorted(left) == sorted(right)
    for path, entry in left.items():
        assert meaning(path, entry) == meaning(path, right[path]), path
    a, b = (OciLayout(image.layout).image() for image in (ours, theirs))
    for name in (
        "env",
        "cmd",
        "entrypoint",
        "working_dir",
        "labels",
        "user",
        "architecture",
        "os",
        "created",
        "exposed_ports",
    ):
        assert getattr(a.config, name) == getattr(b.config, name), name
    assert a.manifest.annotations == b.manifest.annotations
    assert a.manifest.layers[0] == b.manifest.layers[0]  # the base's own layer, not the engine's copy of it
    outputs = [podman.run(image.layout, environ={}) for image in (ours, theirs)]
    assert [result.exit_code for result in outputs] == [0, 0], outputs
    assert json.loads(outputs[0].output_tail) == json.loads(outputs[1].output_tail)


def test_an_engines_image_is_pushed_like_ours(engine, image_home, wheelhouse, make_context, registry, client):
    image = build_image(make_context("engine-tool"), settings=image_home, wheelhouse=wheelhouse, builder=engine)
    pushed = push_image(image, push_target(f"{registry.host}/{engine}", image.reference), client=client)
    assert client.digest_of(f"{engine}/engine-tool", "0.1.0") == pushed.digest == image.digest


def test_a_run_line_is_run(engine, image_home, make_context, podman):
    context = make_context("run-tool")
    lines = (context / "Dockerfile").read_text().splitlines()
    own = [line for line in lines if not line.startswith(("RUN", "    -r"))]
    (context / "Dockerfile").write_text(
        "\n".join([*own, "RUN echo made > /kaapana/made && chmod 640 /kaapana/made", ""])
    )
    image = build_image(context, settings=image_home, builder=engine)
    assert tree(image)["kaapana/made"][1:] == (0o640, 0, 0, b"made\n")
    (context / "Dockerfile").write_text("\n".join([*own, "RUN echo before; exit 3", ""]))
    log: list[str] = []
    with pytest.raises(BuildError, match="ended with exit code"):
        build_image(context, settings=image_home, builder=engine, log=log.append)
    assert "before" in log


def test_auto_says_why(image_home, wheelhouse, make_context, monkeypatch):
    log: list[str] = []
    context = make_context("auto-tool")
    assert build_image(context, settings=image_home, wheelhouse=wheelhouse, log=log.append).builder == "layers"
    assert "it knows every line" in log[0]
    with (context / "Dockerfile").open("a") as file:
        file.write("RUN true\n")
    for kind in (EngineBuilder, DockerBuilder, ProotBuilder):
        monkeypatch.setattr(kind, "unusable", lambda self: f"no {self.name} today")
    log.clear()
    with pytest.raises(BuildError) as caught:
        build_image(context, settings=image_home, wheelhouse=wheelhouse, log=log.append)
    assert "buildah: no buildah today" in caught.value.problem
    assert "docker: no docker today" in caught.value.problem
    assert "allowPrivilegeEscalation" in caught.value.remedy
    assert any("'RUN true'" in line for line in log)
    with pytest.raises(UsageError, match="no buildah today"):
        build_image(context, settings=image_home, builder="buildah")


def test_an_engine_fetches_a_base_from_the_registry(
    engine, image_home, wheelhouse, make_context, registry, client, tmp_path
):
    base = ImageReference(registry=registry.host, repository=f"for-{engine}/base", tag="1")
    layout = OciLayout(image_home.images_dir / "local-only/base-python-cpu/latest")
    built = BuiltImage(
        name="base", reference=base, digest=layout.image().digest, layout=layout.path, builder="layers", base=base
    )
    push_image(built, base, client=client)
    home = Settings(home=tmp_path, workspace=tmp_path, jobs=1)
    try:
        image = build_image(
            make_context("far-tool"),
            settings=home,
            wheelhouse=wheelhouse,
            builder=engine,
            base=str(base),
            client=client,
        )
        assert OciLayout(image.layout).image().manifest.layers[0] == layout.image().manifest.layers[0]
    finally:
        from kaapana_nb.clients.podman import PodmanRunner

        PodmanRunner(home.containers_dir).remove_storage()


@pytest.fixture
def docker_service(image_home: Settings, tmp_path, monkeypatch):
    """Docker's own command line against podman's service, which speaks Docker's API."""
    if shutil.which("docker") is None or shutil.which("podman") is None:
        pytest.skip("docker's command line or podman is not installed")
    if reason := EngineBuilder("podman", image_home.containers_dir).unusable():
        pytest.skip(f"podman cannot build here: {reason}")
    address = f"unix://{tmp_path}/docker.sock"
    environ = {**engine_environ(image_home.containers_dir), "BUILDAH_ISOLATION": "chroot"}
    service = subprocess.Popen(["podman", "system", "service", "--time", "120", address], env=environ, cwd=tmp_path)
    monkeypatch.setenv("DOCKER_HOST", address)
    monkeypatch.setenv("DOCKER_BUILDKIT", "0")  # the service has no BuildKit
    for _ in range(100):
        if not DockerBuilder().unusable():
            break
        time.sleep(0.1)
    yield
    service.terminate()
    service.wait()


def test_docker_builds_a_run_line(docker_service, image_home, make_context, podman):
    context = make_context("docker-tool", "print(open('/kaapana/made').read())")
    lines = (context / "Dockerfile").read_text().splitlines()
    own = [line for line in lines if not line.startswith(("RUN", "    -r"))]
    (context / "Dockerfile").write_text("\n".join([*own, "RUN echo made > /kaapana/made", ""]))
    image = build_image(context, settings=image_home, builder="docker")
    found = OciLayout(image.layout).image()
    base = OciLayout(image_home.images_dir / "local-only/base-python-cpu/latest").image()
    assert found.manifest.layers[0] == base.manifest.layers[0]
    assert found.config.labels["org.opencontainers.image.base.digest"] == base.digest
    assert tree(image)["kaapana/made"][4] == b"made\n"
    result = podman.run(image.layout, environ={})
    assert (result.exit_code, result.output_tail.strip()) == (0, "made")
    (context / "Dockerfile").write_text("\n".join([*own, "RUN exit 3", ""]))
    with pytest.raises(BuildError, match="docker build ended"):
        build_image(context, settings=image_home, builder="docker")


def test_no_docker_daemon(monkeypatch):
    if shutil.which("docker") is None:
        pytest.skip("docker's command line is not installed")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    assert DockerBuilder().unusable() == "the docker daemon does not answer"


LINES = """
RUN mkdir -m 750 /opt/made && echo text > /opt/made/a && ln -s a /opt/made/b && chmod 604 /opt/made/a
RUN rm /etc/nsswitch.conf && rm -r /mnt && python3 -c "import small; open('/opt/made/c', 'w').write(str(small.VALUE))"
RUN ["python3", "-c", "import os; print(os.getcwd()); open('here', 'w').write(os.environ['PYTHONPATH'])"]
"""


def applied(image: BuiltImage) -> Tree:
    """The image's files with whiteouts applied."""
    files: Tree = {}
    layout = OciLayout(image.layout)
    for layer in layout.image().manifest.layers:
        with tarfile.open(layout.blob_path(layer.digest)) as archive:
            for member in archive:
                path = Path(member.name.strip("/"))
                if path.name.startswith(".wh."):
                    gone = str(path.with_name(path.name.removeprefix(".wh.")))
                    files = {
                        name: file for name, file in files.items() if name != gone and not name.startswith(gone + "/")
                    }
                    continue
                content: object = member.linkname
                if member.isfile():
                    opened = archive.extractfile(member)
                    assert opened is not None
                    content = opened.read()
                files[str(path)] = (member.type.decode(), member.mode & 0o7777, member.uid, member.gid, content)
    return files


def test_proot_gives_what_buildah_gives(image_home, wheelhouse, make_context, podman):
    if reason := ProotBuilder().unusable():
        pytest.skip(f"proot cannot be used here: {reason}")
    if reason := EngineBuilder("buildah", image_home.containers_dir).unusable():
        pytest.skip(f"buildah cannot build here: {reason}")
    context = make_context("proot-tool")
    text = (context / "Dockerfile").read_text().replace("CMD", LINES + "CMD")
    (context / "Dockerfile").write_text(text)
    ours = build_image(context, settings=image_home, wheelhouse=wheelhouse, builder="proot", tag="proot")
    # buildah takes this Dockerfile's pip line as it stands, so it gets the wheels in a find-links of its own
    (context / "Dockerfile").write_text(
        text.replace("LABEL VERSION", "ENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/w\nCOPY w /w\nLABEL VERSION")
    )
    shutil.copytree(wheelhouse, context / "w")
    theirs = build_image(context, settings=image_home, builder="buildah", tag="buildah")
    left, right = applied(ours), applied(theirs)
    for path in [name for name in right if name == "w" or name.startswith("w/")]:
        del right[path]
    assert sorted(left) == sorted(right)
    for path, entry in left.items():
        assert meaning(path, entry) == meaning(path, right[path]), path
    assert left["opt/made/c"][4] == b"41"
    assert left["opt/made"][1] == 0o750
    assert "etc/nsswitch.conf" not in left
    assert "mnt" not in left
    assert left["kaapana/app/here"][4] == b"/kaapana/packages"
    assert podman.run(ours.layout, environ={}).exit_code == 0


@pytest.mark.parametrize("line", ["RUN chown 1000 /opt", "RUN useradd x", "USER 1000\nRUN true"])
def test_proot_refuses_what_it_cannot_keep(image_home, wheelhouse, make_context, line):
    if reason := ProotBuilder().unusable():
        pytest.skip(f"proot cannot be used here: {reason}")
    context = make_context("proot-tool")
    with (context / "Dockerfile").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(BuildError, match="proot cannot keep owners"):
        build_image(context, settings=image_home, wheelhouse=wheelhouse, builder="proot")


@pytest.mark.parametrize("name", ["../x", "a/../../x", "link/x"])
def test_a_bases_layer_cannot_leave_its_root(tmp_path, name):
    blob, root = tmp_path / "layer.tar", tmp_path / "root"
    root.mkdir()
    with tarfile.open(blob, "w") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo(name))
    with pytest.raises(BuildError, match="outside of the image"):
        unpack_tree(blob, root)
    assert not (tmp_path / "x").exists()
