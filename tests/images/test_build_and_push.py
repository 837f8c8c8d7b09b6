"""Build, push, archive and run: against the real registry, skopeo and podman."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kaapana_nb.clients.containers import ContainerRunner, Mount
from kaapana_nb.clients.layout import OciLayout
from kaapana_nb.clients.process_runner import ProcessRunner
from kaapana_nb.clients.referrers import read_document, referrers
from kaapana_nb.emulator.registry import LocalRegistry
from kaapana_nb.errors import BuildError, UsageError
from kaapana_nb.reference import ImageReference
from kaapana_nb.settings import Settings
from kaapana_nb.ship.archive import write_archive
from kaapana_nb.ship.build import BuiltImage, build_image, find_contexts, platform_tag, push_image, push_target
from kaapana_nb.ship.dockerfile import parse_dockerfile

if TYPE_CHECKING:
    from kaapana_nb.clients.registry import RegistryClient

pytestmark = pytest.mark.images


def skopeo(*words: str) -> str:
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    return subprocess.run(["skopeo", *words], capture_output=True, text=True, check=True).stdout.strip()


def test_the_same_export_gives_the_same_digest_in_two_homes(image_home, wheelhouse, make_context, tmp_path):
    first = build_image(make_context(), settings=image_home, wheelhouse=wheelhouse)
    other = Settings(home=tmp_path / "home", workspace=tmp_path, jobs=1)
    second = build_image(make_context(directory=tmp_path / "elsewhere"), settings=other, wheelhouse=wheelhouse)
    assert first.digest == second.digest
    assert first.layout != second.layout
    assert str(first.reference) == "probe-tool:0.1.0"


def test_what_is_in_the_image(image_home, wheelhouse, make_context):
    image = build_image(make_context(), settings=image_home, wheelhouse=wheelhouse)
    layout = OciLayout(image.layout)
    found = layout.image()
    assert found.config.cmd == ("python3", "/kaapana/app/app.py")
    assert found.config.working_dir == "/kaapana/app"
    assert found.config.environ["PYTHONPATH"] == "/kaapana/packages"
    assert found.config.labels["IMAGE"] == "probe-tool"
    assert found.config.created == "1970-01-01T00:00:00Z"
    members: dict[str, tarfile.TarInfo] = {}
    texts = b""
    for layer in found.manifest.layers[1:]:
        with tarfile.open(layout.blob_path(layer.digest)) as archive:
            members.update({member.name: member for member in archive})
            for member in archive:
                if member.isfile() and not member.name.endswith(".bin"):
                    opened = archive.extractfile(member)
                    assert opened is not None
                    texts += opened.read()
    assert {(member.uid, member.gid, member.mtime) for member in members.values()} == {(0, 0, 0)}
    assert "kaapana/packages/small/__init__.py" in members
    assert members["kaapana/packages/bin/large-main"].mode == 0o755
    assert not [name for name in members if name.endswith(".pyc")]
    assert b"#!/usr/bin/env python3\n" in texts
    for secret in (str(image_home.home), str(wheelhouse), str(Path.home()) + "/"):
        assert secret.encode() not in texts


def test_push_equals_what_skopeo_sees(image_home, wheelhouse, make_context, registry, client, auth_file):
    image = build_image(make_context("seen-tool"), settings=image_home, wheelhouse=wheelhouse, client=client)
    pushed = push_image(image, push_target(f"{registry.host}/tools", image.reference), client=client)
    assert pushed.reference == ImageReference(
        registry=registry.host, repository="tools/seen-tool", tag="0.1.0", digest=image.digest
    )
    tagged = str(pushed.reference.with_digest(""))
    seen = skopeo("inspect", "--authfile", str(auth_file), "--tls-verify=false", f"docker://{tagged}")
    assert json.loads(seen)["Digest"] == pushed.digest
    assert json.loads(seen)["Labels"]["IMAGE"] == "seen-tool"


def test_a_changed_line_moves_the_code_layer_only(image_home, wheelhouse, make_context, registry, client):
    target = push_target(registry.host, ImageReference(repository="small-change", tag="0.1.0"))
    first = build_image(make_context("small-change"), settings=image_home, wheelhouse=wheelhouse, client=client)
    assert push_image(first, target, client=client).bytes_uploaded > 5_000_000
    again = push_image(first, target, client=client)
    assert again.bytes_uploaded == 0
    second = build_image(
        make_context("small-change", "print('changed')\n"), settings=image_home, wheelhouse=wheelhouse, client=client
    )
    found = OciLayout(second.layout).image()
    lines: list[str] = []
    moved = push_image(second, target, client=client, log=lines.append).bytes_uploaded
    code = found.manifest.layers[-1]
    sent = [line.partition(" ")[0] for line in lines if line.endswith("MB sent")]
    assert sent == [blob.digest[7:19] for blob in (code, found.manifest.config)]
    listed = 2_000  # the manifest and the index that name the unchanged bill of materials for the new digest
    assert moved <= code.size + found.manifest.config.size + found.descriptor.size + listed
    assert second.digest != first.digest


def test_layers_of_a_base_in_the_registry_are_neither_fetched_nor_sent(
    image_home, wheelhouse, make_context, registry, client, tmp_path
):
    base = ImageReference(registry=registry.host, repository="platform/base-python-cpu", tag="0.6")
    own = build_image(make_context("base-carrier"), settings=image_home, wheelhouse=wheelhouse)
    layout = OciLayout(image_home.images_dir / "local-only/base-python-cpu/latest")
    found = layout.image()
    as_image = BuiltImage(
        name="base", reference=base, digest=found.digest, layout=layout.path, builder="layers", base=own.base
    )
    push_image(as_image, base, client=client)
    home = Settings(home=tmp_path / "empty", workspace=tmp_path, jobs=1)
    image = build_image(make_context("mounted"), settings=home, wheelhouse=wheelhouse, base=str(base), client=client)
    sparse = OciLayout(image.layout)
    assert not sparse.has(found.manifest.layers[0])
    lines: list[str] = []
    pushed = push_image(image, push_target(registry.host, image.reference), client=client, log=lines.append)
    assert [line for line in lines if line.endswith("mounted")]
    assert pushed.bytes_uploaded < found.manifest.layers[0].size
    # The whole image is in the registry: a second client fetches every layer of it.
    for layer in sparse.image().manifest.layers:
        assert client.has_blob("mounted", layer)
    write_archive(image, tmp_path / "whole.tar", client=client)
    assert sparse.has(found.manifest.layers[0])


def test_the_archive_is_oci_and_docker_at_once(image_home, wheelhouse, make_context, tmp_path):
    image = build_image(make_context(), settings=image_home, wheelhouse=wheelhouse)
    first, second = tmp_path / "a.tar", tmp_path / "b.tar"
    write_archive(image, first)
    write_archive(image, second)
    assert first.read_bytes() == second.read_bytes()
    assert skopeo("inspect", "--format", "{{.Digest}}", f"oci-archive:{first}") == image.digest
    docker = json.loads(skopeo("inspect", f"docker-archive:{first}"))
    assert docker["Labels"]["IMAGE"] == "probe-tool"
    assert json.loads(skopeo("inspect", "--config", f"docker-archive:{first}"))["config"]["Cmd"][0] == "python3"


PROBE = """
import json, os, pathlib, sys
import large, own, small
pathlib.Path("/data/out.json").write_text(json.dumps({
    "value": small.VALUE, "own": own.NAME, "uid": os.getuid(), "path": large.__file__,
    "form": os.environ["FORM"], "dir": os.environ["WORKFLOW_DIR"], "cwd": os.getcwd()}))
print("said", file=sys.stderr)
sys.exit(7)
"""


def test_the_container_runs_read_only_without_network(image_home, wheelhouse, make_context, podman, tmp_path):
    image = build_image(make_context(app=PROBE), settings=image_home, wheelhouse=wheelhouse)
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(0o777)
    lines: list[str] = []
    result = podman.run(
        image.layout, environ={"FORM": "a b\nc", "WORKFLOW_DIR": "data"}, mounts=[Mount(source=data, target="/data")],
        log=lines.append,
    )  # fmt: skip
    assert (result.exit_code, result.oom_killed) == (7, False)
    seen = json.loads((data / "out.json").read_text())
    assert seen == {
        "value": 41, "own": "own", "uid": 1000, "path": "/kaapana/packages/large/__init__.py", "form": "a b\nc",
        "dir": "data", "cwd": "/kaapana/app",
    }  # fmt: skip
    assert lines == ["said"]
    assert result.output_tail == "said"


def _python(runner: ContainerRunner, image: BuiltImage, code: str, **options: object):
    return runner.run(image.layout, environ={}, command=["python3", "-c", code], **options)  # type: ignore[arg-type]


def test_walls_of_the_container(image_home, wheelhouse, make_context, podman, tmp_path):
    image = build_image(make_context(), settings=image_home, wheelhouse=wheelhouse)
    fixed = tmp_path / "fixed"
    fixed.mkdir()
    fixed.chmod(0o777)
    mounts = [Mount(source=fixed, target="/fixed", read_only=True)]
    assert _python(podman, image, "open('/kaapana/x', 'w')").exit_code == 1
    assert "Read-only" in _python(podman, image, "open('/fixed/x', 'w')", mounts=mounts).output_tail
    assert _python(podman, image, "open('/tmp/x', 'w')").exit_code == 0
    connect = "import socket; socket.create_connection(('127.0.0.1', %d), 2)"
    with_port = connect % 9
    assert "Error" in _python(podman, image, with_port).output_tail
    killed = _python(podman, image, "b = bytearray(400 << 20)", memory_mib=100)
    assert (killed.exit_code, killed.oom_killed) == (137, True)
    late = _python(podman, image, "import time; time.sleep(60)", timeout_s=1.0)
    assert late.timed_out
    assert late.seconds < 20


def test_podman_keeps_one_image_of_a_layout(image_home, wheelhouse, make_context, podman):
    seen = []
    for number in range(2):
        image = build_image(make_context("kept", f"print({number})"), settings=image_home, wheelhouse=wheelhouse)
        assert podman.run(image.layout, environ={}).output_tail == str(number)
        seen.append(OciLayout(image.layout).image().manifest.config.digest.removeprefix("sha256:"))
    listed = podman._podman("images", "--all", "--quiet", "--no-trunc").stdout
    assert seen[0] not in listed
    assert seen[1] in listed


def test_the_base_has_what_wheels_need(image_home, podman):
    layout = image_home.images_dir / "local-only/base-python-cpu/latest"
    code = (
        "import ssl, sqlite3, ctypes, bz2, lzma, curses, readline, uuid, zoneinfo, multiprocessing.synchronize, pip\n"
        "ctypes.CDLL('libstdc++.so.6'); ctypes.CDLL('libgcc_s.so.1')\n"
        "print(ssl.create_default_context().cert_store_stats()['x509_ca'] > 100)"
    )
    result = podman.run(layout, environ={}, command=["python3", "-c", code])
    assert (result.exit_code, result.output_tail) == (0, "True")


def test_the_base_names_nothing_of_this_machine(image_home):
    layout = OciLayout(image_home.images_dir / "local-only/base-python-cpu/latest")
    import sys

    if len(str(Path(sys.base_prefix).parent)) <= len("/opt/python"):
        pytest.skip("this Python's prefix is short, and of no machine")
    data = gzip.decompress(layout.blob_path(layout.image().manifest.layers[0].digest).read_bytes())
    assert sys.base_prefix.encode() not in data


def test_the_process_runner_gives_the_same(image_home, wheelhouse, make_context, tmp_path):
    image = build_image(make_context(app=PROBE), settings=image_home, wheelhouse=wheelhouse)
    data = tmp_path / "data"
    data.mkdir()
    (data / "conf").write_text("x")
    runner = ProcessRunner(tmp_path / "unpacked")
    app = PROBE.replace('"/data/out.json"', 'os.environ["WORKFLOW_DIR"] + "/out.json"')
    image = build_image(make_context(app=app), settings=image_home, wheelhouse=wheelhouse)
    result = runner.run(
        image.layout, environ={"FORM": "f", "WORKFLOW_DIR": "data"}, mounts=[Mount(source=data, target="/data")]
    )
    assert (result.exit_code, result.output_tail) == (7, "said")
    seen = json.loads((data / "out.json").read_text())
    assert (seen["value"], seen["own"], seen["form"]) == (41, "own", "f")
    assert seen["dir"] == str(data)
    assert seen["cwd"].startswith(str(tmp_path / "unpacked"))
    assert seen["path"].startswith(str(tmp_path / "unpacked"))


def test_the_process_runner_checks_what_it_unpacks(image_home, wheelhouse, make_context, tmp_path):
    home = Settings(home=tmp_path / "home", workspace=tmp_path, jobs=1)
    shutil.copytree(image_home.images_dir / "local-only", home.images_dir / "local-only")
    image = build_image(make_context(), settings=home, wheelhouse=wheelhouse)
    layout = OciLayout(image.layout)
    blob = layout.blob_path(layout.image().manifest.layers[-1].digest)
    data = blob.read_bytes()
    blob.unlink()
    blob.write_bytes(data[:-1] + b"X")
    with pytest.raises(BuildError, match="was expected"):
        ProcessRunner(tmp_path / "unpacked").run(image.layout, environ={})


def test_bad_contexts(image_home, wheelhouse, make_context, tmp_path):
    with pytest.raises(BuildError, match="no processing-containers"):
        find_contexts(tmp_path / "nothing")
    context = make_context("bad-tool")

    def refused(file: str, text: str, match: str) -> None:
        fresh = make_context("bad-tool")
        (fresh / file).write_text(text)
        with pytest.raises(BuildError, match=match):
            build_image(fresh, settings=image_home, wheelhouse=wheelhouse, builder="layers")

    dockerfile = (context / "Dockerfile").read_text()
    refused("Dockerfile", dockerfile.replace("RUN python3 -m pip", "RUN apt-get update && python3 -m pip"), "RUN")
    refused("Dockerfile", dockerfile.replace("COPY files/app.py", "COPY ../app.py"), "inside the context")
    refused("Dockerfile", dockerfile.replace("COPY files/app.py", "COPY files/nothing.py"), "not in the context")
    refused("files/requirements.txt", "small>=1.0\n", "name==version")
    refused("files/requirements.txt", "missing==1.0\n", "has no wheel of missing==1.0")
    refused("files/requirements.txt", "--index-url https://example.org/simple\n", "name==version")
    refused("files/requirements.txt", "/kaapana/app/wheels/other-1-py3-none-any.whl\n", "no COPY line")
    fresh = make_context("bad-tool")
    (fresh / "files/app.py").unlink()
    (fresh / "files/app.py").symlink_to("/etc/passwd")
    with pytest.raises(BuildError, match=r"symbolic link|not in the context"):
        build_image(fresh, settings=image_home, wheelhouse=wheelhouse)
    fresh = make_context("bad-tool")
    wheel = fresh / "files/wheels/own-0.1-py3-none-any.whl"
    wheel.write_bytes(wheel.read_bytes()[:-40])
    with pytest.raises(BuildError, match="no usable wheel"):
        build_image(fresh, settings=image_home, wheelhouse=wheelhouse)
    with pytest.raises(UsageError, match="no builder"):
        build_image(make_context("bad-tool"), settings=image_home, builder="magic")
    with pytest.raises(BuildError, match="neither in"):
        build_image(make_context("bad-tool"), settings=image_home, base="local-only/other:1")


def test_oci_labels_become_annotations(image_home, wheelhouse, make_context):
    context = make_context("labelled")
    with (context / "Dockerfile").open("a") as file:
        file.write(
            'LABEL org.opencontainers.image.created="2026-01-02T03:04:05Z" org.opencontainers.image.revision="abc"\n'
        )
    image = build_image(context, settings=image_home, wheelhouse=wheelhouse)
    found = OciLayout(image.layout).image()
    base = OciLayout(image_home.images_dir / "local-only/base-python-cpu/latest").image()
    assert found.config.created == "2026-01-02T03:04:05Z"
    for where in (found.config.labels, found.manifest.annotations):
        assert where["org.opencontainers.image.revision"] == "abc"
        assert where["org.opencontainers.image.base.name"] == "local-only/base-python-cpu:latest"
        assert where["org.opencontainers.image.base.digest"] == base.digest


@pytest.mark.parametrize(
    ("label", "expected"), [("BUILD_IGNORE", "0.6.1-7-gabc"), ("CI_IGNORE", "kp_0.6.1-7-gabc__0.1.0")]
)
def test_tags_by_platform(make_context, label, expected):
    context = make_context("tagged")
    text = (context / "Dockerfile").read_text().replace("BUILD_IGNORE", label)
    assert platform_tag(parse_dockerfile(text), "0.6.1-7-gabc") == expected


def test_a_client_for_another_registry_is_refused(image_home, wheelhouse, make_context, client: RegistryClient):
    image = build_image(make_context(), settings=image_home, wheelhouse=wheelhouse)
    with pytest.raises(UsageError, match="is not in registry"):
        push_image(image, ImageReference.parse("other.example.org/x:1"), client=client)


def test_the_registry_leaves_no_process(tmp_path):
    if shutil.which("docker-registry") is None:
        pytest.skip("docker-registry is not installed")
    with LocalRegistry(tmp_path) as running:
        pid = running.pid
        assert Path(f"/proc/{pid}").exists()
        assert running.credentials.password not in repr(running.credentials)
        command = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
        assert running.credentials.password.encode() not in command
    assert not Path(f"/proc/{pid}").exists()


def test_the_bill_of_materials_is_a_referrer(image_home, wheelhouse, make_context, registry, client):
    image = build_image(make_context("bom-tool"), settings=image_home, wheelhouse=wheelhouse)
    again = build_image(make_context("bom-tool", "print(2)"), settings=image_home, wheelhouse=wheelhouse)
    assert image.sbom == again.sbom  # a changed notebook does not change it
    for _ in range(2):
        push_image(again, push_target(registry.host, again.reference), client=client)
    attached = referrers(client, "bom-tool", again.digest)
    assert len(attached) == 1
    bom = read_document(client, "bom-tool", attached[0])
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")
    assert bom["metadata"]["component"]["name"] == "bom-tool"
    found = {item["name"]: item for item in bom["components"]}
    assert set(found) == {"small", "large", "own", "local-only/base-python-cpu:latest"}
    assert found["small"]["purl"] == "pkg:pypi/small@1.0"
    digest = hashlib.sha256((wheelhouse / "small-1.0-py3-none-any.whl").read_bytes()).hexdigest()
    assert found["small"]["hashes"] == [{"alg": "SHA-256", "content": digest}]


def test_the_bill_of_materials_is_valid(image_home, wheelhouse, make_context):
    validation = pytest.importorskip("cyclonedx.validation.json")
    from cyclonedx.exception import MissingOptionalDependencyException
    from cyclonedx.schema import SchemaVersion

    image = build_image(make_context("valid-tool"), settings=image_home, wheelhouse=wheelhouse)
    assert image.sbom is not None
    try:
        assert validation.JsonStrictValidator(SchemaVersion.V1_6).validate_str(image.sbom.read_text()) is None
    except MissingOptionalDependencyException:
        pytest.skip("cyclonedx-python-lib[json-validation] is not installed")
