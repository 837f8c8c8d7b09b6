"""The chart that installs DAGs: what it makes of the values of both generations, under both majors of Helm."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from chart_checks import INSTALLER, KUBERNETES, PLATFORM, findings, manifests, rendered_notes

from kaapana_nb.clients.helm import Helm
from kaapana_nb.errors import PlatformError

pytestmark = pytest.mark.charts

VALUES = {path.name.removesuffix("-values.yaml"): path for path in sorted((INSTALLER / "ci").glob("*-values.yaml"))}
IMAGE = {"global.image": "dag-otsus-method", "global.version": "0.1.0"}


def render(helm: Helm, generation: str, **sets: str) -> list[dict[str, Any]]:
    changed = {f"global.{name}": value for name, value in sets.items()}
    return manifests(helm.template(INSTALLER, sets={**IMAGE, **PLATFORM[generation], **changed}))


def container(manifest: dict[str, Any]) -> dict[str, Any]:
    (only,) = manifest["spec"]["template"]["spec"]["containers"]
    assert isinstance(only, dict)
    return only


def environment(manifest: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["value"] for item in container(manifest)["env"]}


@pytest.mark.parametrize("values", [None, *VALUES.values()], ids=lambda path: path.name if path else "defaults")
def test_lint_has_nothing_to_say(helm: Helm, values: Path | None) -> None:
    if values is None:  # the image's name is the workflow chart's to give, and lint warns of names without it
        assert "0 chart(s) failed" in helm.lint(INSTALLER, strict=False)
    else:
        assert "WARNING" not in helm.lint(INSTALLER, values=[values])


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("version", KUBERNETES)
def test_every_manifest_is_valid(helm: Helm, name: str, version: str) -> None:
    rendered = manifests(helm.template(INSTALLER, values=[VALUES[name]], kubernetes=version))
    assert [manifest["kind"] for manifest in rendered] == (["Deployment"] if name == "prefetch" else ["Job", "Job"])
    assert [line for manifest in rendered for line in findings(manifest, version)] == []


def test_an_invalid_manifest_and_an_unknown_kind_are_found() -> None:
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, "spec": {"template": {"spec": {}}}}
    assert len(list(findings(job, "1.31"))) == 1
    assert len(list(findings({"apiVersion": "example.org/v1", "kind": "Nothing"}, "1.31"))) == 1


def test_package(helm: Helm, tmp_path: Path) -> None:
    packed = helm.package(INSTALLER, tmp_path)
    assert packed.name == "dag-installer-chart-0.1.0.tgz"
    shutil.unpack_archive(packed, tmp_path / "unpacked")
    root = tmp_path / "unpacked" / "dag-installer-chart"
    assert (root / "templates" / "install.yaml").read_bytes() == (INSTALLER / "templates" / "install.yaml").read_bytes()
    assert not (root / "ci").exists()


def test_kaapana_06_is_given_what_its_installer_asks_for(helm: Helm) -> None:
    install, remove = render(helm, "0.6")
    assert environment(install) == {
        "ACTION": "copy",
        "ADMIN_NAMESPACE": "admin",
        "SERVICES_NAMESPACE": "services",
        "KAAPANA_BUILD_VERSION": "0.6.0",
        "KAAPANA_DEFAULT_REGISTRY": "registry.example.org/kaapana",
    }
    assert environment(remove) == {**environment(install), "ACTION": "remove"}
    for manifest in (install, remove):
        assert manifest["metadata"]["namespace"] == "services"
        assert container(manifest)["image"] == "registry.example.org/kaapana/dag-otsus-method:0.6.0"
        pod = manifest["spec"]["template"]["spec"]
        claims = {volume["name"]: volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"]}
        mounted = {mount["mountPath"]: claims[mount["name"]] for mount in container(manifest)["volumeMounts"]}
        assert mounted == {
            "/kaapana/mounted/workflows/dags": "dags-pv-claim",
            "/kaapana/mounted/workflows/plugins": "af-plugins-pv-claim",
        }


def test_kaapana_01_is_given_what_its_installer_asks_for(helm: Helm) -> None:
    install, remove = render(helm, "0.1")
    assert [environment(manifest) for manifest in (install, remove)] == [{"ACTION": "copy"}, {"ACTION": "remove"}]
    for manifest in (install, remove):
        assert manifest["metadata"]["namespace"] == "default"
        assert container(manifest)["image"] == "registry.example.org/kaapana/dag-otsus-method:kp_0.1.3__0.1.0"
        (volume,) = manifest["spec"]["template"]["spec"]["volumes"]
        assert volume["hostPath"]["path"] == "/home/kaapana/workflows"
        assert container(manifest)["volumeMounts"] == [{"name": volume["name"], "mountPath": "/workflows"}]


def test_uninstalling_runs_the_removal_and_clears_it_away(helm: Helm) -> None:
    install, remove = render(helm, "0.6")
    assert "annotations" not in install["metadata"]
    assert remove["metadata"]["annotations"] == {
        "helm.sh/hook": "post-delete",
        "helm.sh/hook-delete-policy": "before-hook-creation,hook-succeeded",
    }
    assert remove["spec"]["activeDeadlineSeconds"] < 300


def test_prefetch_touches_no_volume_and_removes_nothing(helm: Helm) -> None:
    (only,) = render(helm, "0.6", action="prefetch")
    assert only["kind"] == "Deployment"
    assert "volumes" not in only["spec"]["template"]["spec"]
    assert environment(only)["ACTION"] == "prefetch"


@pytest.mark.parametrize("given", ["other.example.org/team", "https://other.example.org/team/"])
def test_the_dag_image_may_lie_in_another_registry(helm: Helm, given: str) -> None:
    install, _ = render(helm, "0.6", custom_registry_url=given)
    assert container(install)["image"] == "other.example.org/team/dag-otsus-method:0.6.0"
    assert environment(install)["KAAPANA_DEFAULT_REGISTRY"] == "registry.example.org/kaapana"


@pytest.mark.parametrize(("user", "added"), [("0", ["DAC_OVERRIDE", "FOWNER"]), ("1000", None)])
def test_no_more_rights_than_the_volumes_ask_for(
    helm: Helm, tmp_path: Path, user: str, added: list[str] | None
) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(f"runAsUser: {user}\n")
    for manifest in manifests(helm.template(INSTALLER, values=[values], sets={**IMAGE, **PLATFORM["0.6"]})):
        context = container(manifest)["securityContext"]
        assert (context["runAsUser"], context["runAsNonRoot"]) == (int(user), user != "0")
        assert context["capabilities"].get("add") == added
        assert context["capabilities"]["drop"] == ["ALL"]
        assert context["allowPrivilegeEscalation"] is False
        assert manifest["spec"]["template"]["spec"]["automountServiceAccountToken"] is False
        assert set(container(manifest)["resources"]) == {"requests", "limits"}


@pytest.mark.parametrize(
    ("generation", "missing", "said"),
    [
        ("0.6", "global.image", "global.image is not set"),
        ("0.6", "global.registry_url", "global.registry_url is not set"),
        ("0.6", "global.kaapana_build_version", "Neither global.kaapana_build_version"),
        ("0.6", "global.admin_namespace", "global.admin_namespace is not set"),
        ("0.6", "global.services_namespace", "global.services_namespace is not set"),
        ("0.1", "global.version", "global.version is not set"),
        ("0.1", "global.fast_data_dir", "global.fast_data_dir is not set"),
    ],
)
def test_what_is_missing_is_named(helm: Helm, generation: str, missing: str, said: str) -> None:
    sets = {**IMAGE, **PLATFORM[generation]}
    del sets[missing]
    with pytest.raises(PlatformError, match=said):
        helm.template(INSTALLER, sets=sets)


@pytest.mark.parametrize(
    "sets",
    [
        {"global.image": "dag\nkind: Pod"},
        {"global.image": "UPPER"},
        {"global.action": "remove"},
        {"global.kaapana_build_version": "0.6 0"},
        {"global.fast_data_dir": "relative"},
        {"global.pull_policy_images": "Sometimes"},
        {"runAsUSer": "1000"},
    ],
    ids=str,
)
def test_wrong_values_are_refused(helm: Helm, sets: dict[str, str]) -> None:
    with pytest.raises(PlatformError, match="schema"):
        helm.template(INSTALLER, sets={**IMAGE, **PLATFORM["0.6"], **sets})


@pytest.mark.parametrize(
    ("generation", "expected"),
    [("0.6", "kubectl -n services logs job/dag-otsus-method"), ("0.1", "no directory /home/kaapana/workflows")],
)
def test_the_notes_diagnose(helm: Helm, tmp_path: Path, generation: str, expected: str) -> None:
    chart = tmp_path / INSTALLER.name
    shutil.copytree(INSTALLER, chart)
    notes = rendered_notes(helm, chart, {**IMAGE, **PLATFORM[generation]})
    assert expected in notes
    assert "ImagePullBackOff" in notes


def test_names_fit_for_the_longest_operator(helm: Helm) -> None:
    image = "dag-" + "x" * 50
    names = [manifest["metadata"]["name"] for manifest in render(helm, "0.6", image=image)]
    assert names == [image, f"remove-{image}"]
    assert max(map(len, names)) <= 63
