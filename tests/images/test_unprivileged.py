"""A hospital's pod: uid 1000, no capabilities, no_new_privs, the engine's default seccomp profile, a read-only root."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sysconfig
import tarfile
from pathlib import Path

import pytest

import kaapana_nb
from kaapana_nb.clients.containers import Mount
from kaapana_nb.clients.layout import OciLayout
from kaapana_nb.reference import ImageReference
from kaapana_nb.ship.build import BuiltImage, build_image, push_image

pytestmark = pytest.mark.images

SHOW = """
import json, os, subprocess, sys
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
names = ("Uid", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp")
print(json.dumps({name: status[name].strip() for name in names}), flush=True)
sys.exit(subprocess.call([sys.executable, "-m", "kaapana_nb", *sys.argv[1:]]))
"""


def test_build_and_push_without_any_privilege(podman, image_home, wheelhouse, make_context, registry, client, tmp_path):
    base = ImageReference(registry=registry.host, repository="hospital/base-python-cpu", tag="latest")
    layout = OciLayout(image_home.images_dir / "local-only/base-python-cpu/latest")
    built = BuiltImage(
        name="base", reference=base, digest=layout.image().digest, layout=layout.path, builder="layers", base=base
    )
    push_image(built, base, client=client)
    context = make_context("pod-tool")
    work = tmp_path / "work"
    work.mkdir()
    work.chmod(0o777)
    wheelhouse.chmod(0o755)
    packages = Path(kaapana_nb.__file__).parent
    result = podman.run(
        layout.path,
        environ={
            "PYTHONPATH": "/src:/site", "HOME": "/work", "KAAPANA_NB_HOME": "/work/home",
            "KAAPANA_NB_REGISTRY_USER": registry.credentials.username,
            "KAAPANA_NB_REGISTRY_PASSWORD": registry.credentials.password,
        },
        mounts=[
            Mount(source=packages, target="/src/kaapana_nb", read_only=True),
            Mount(source=Path(sysconfig.get_path("purelib")), target="/site", read_only=True),
            Mount(source=context, target="/context", read_only=True),
            Mount(source=wheelhouse, target="/wheels", read_only=True),
            Mount(source=work, target="/work"),
        ],
        command=["python3", "-c", SHOW, "build", "/context", "--push", f"{registry.host}/hospital", "--base", str(base),
                 "--wheelhouse", "/wheels", "--json"],
        network=True,
    )  # fmt: skip
    assert result.exit_code == 0, result.output_tail
    shown, _, rest = result.output_tail.partition("\n")
    status = json.loads(shown)
    assert status["Uid"].split() == ["1000"] * 4
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    image = json.JSONDecoder().raw_decode(rest[rest.index("{\n") :])[0]["images"][0]
    assert client.digest_of("hospital/pod-tool", "0.1.0") == image["digest"]
    assert registry.credentials.password not in result.output_tail
    # The same export gives the same image here, where this process is another user on another root.
    here = build_image(
        context, settings=image_home, wheelhouse=wheelhouse, base=str(base), client=client, tag="from-here"
    )
    assert [layer.digest for layer in OciLayout(here.layout).image().manifest.layers] == [
        layer.digest for layer in OciLayout(work / "home/images/pod-tool/0.1.0").image().manifest.layers
    ]
    assert here.digest == image["digest"]


def test_builders_that_need_privileges_say_so(podman, image_home, make_context):
    context = make_context("pod-tool")
    with (context / "Dockerfile").open("a") as file:
        file.write("RUN true\n")
    layout = image_home.images_dir / "local-only/base-python-cpu/latest"
    packages = Path(kaapana_nb.__file__).parent
    result = podman.run(
        layout,
        environ={"PYTHONPATH": "/src:/site", "HOME": "/tmp", "KAAPANA_NB_HOME": "/tmp/home"},
        mounts=[
            Mount(source=packages, target="/src/kaapana_nb", read_only=True),
            Mount(source=Path(sysconfig.get_path("purelib")), target="/site", read_only=True),
            Mount(source=context, target="/context", read_only=True),
            Mount(source=layout, target="/base", read_only=True),
        ],
        command=["python3", "-m", "kaapana_nb", "build", "/context", "--base", "/base"],
    )
    assert result.exit_code == 1
    assert "'RUN true'" in result.output_tail
    assert "allowPrivilegeEscalation" in result.output_tail
    assert "Traceback" not in result.output_tail


def test_proot_runs_lines_without_any_privilege(podman, image_home, wheelhouse, make_context, tmp_path):
    """The same pod with proot in it: a Dockerfile with other RUN lines is built all the same."""
    proot, ldd = shutil.which("proot"), shutil.which("ldd")
    if proot is None or ldd is None:
        pytest.skip("proot is not installed")
    libraries = subprocess.run([ldd, proot], capture_output=True, text=True, check=True).stdout
    talloc = re.search(r"libtalloc\.so\.2 => (/\S+)", libraries)
    if talloc is None:
        pytest.skip("this proot needs other libraries than Debian's")
    context = make_context("pod-run-tool")
    with (context / "Dockerfile").open("a") as file:
        file.write("RUN mkdir /opt/made && echo made > /opt/made/a && rm /etc/nsswitch.conf\n")
    wheelhouse.chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    work.chmod(0o777)
    layout = image_home.images_dir / "local-only/base-python-cpu/latest"
    result = podman.run(
        layout,
        environ={"PYTHONPATH": "/src:/site", "HOME": "/work", "KAAPANA_NB_HOME": "/work/home"},
        mounts=[
            Mount(source=Path(kaapana_nb.__file__).parent, target="/src/kaapana_nb", read_only=True),
            Mount(source=Path(sysconfig.get_path("purelib")), target="/site", read_only=True),
            Mount(source=context, target="/context", read_only=True),
            Mount(source=wheelhouse, target="/wheels", read_only=True),
            Mount(source=layout, target="/base", read_only=True),
            Mount(source=Path(proot), target="/usr/bin/proot", read_only=True),
            Mount(source=Path(talloc[1]).resolve(), target=f"/usr/{talloc[1].lstrip('/').removeprefix('usr/')}"),
            Mount(source=work, target="/work"),
        ],
        command=["python3", "-m", "kaapana_nb", "build", "/context", "--base", "/base", "--wheelhouse", "/wheels"],
    )  # fmt: skip
    assert result.exit_code == 0, result.output_tail
    assert "builder proot runs the Dockerfile's lines" in result.output_tail
    built = OciLayout(work / "home/images/pod-run-tool/0.1.0")
    with tarfile.open(built.blob_path(built.image().manifest.layers[-1].digest)) as archive:
        assert sorted(archive.getnames()) == ["etc/.wh.nsswitch.conf", "opt/made", "opt/made/a"]
    ran = podman.run(built.path, environ={}, command=["python3", "-c", "print(open('/opt/made/a').read())"])
    assert (ran.exit_code, ran.output_tail.strip()) == (0, "made")
