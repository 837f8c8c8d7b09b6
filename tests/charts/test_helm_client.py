"""The Helm client: which program it takes, what it lets through, and what its errors say."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from chart_checks import INSTALLER, PLATFORM, manifests

from kaapana_nb.clients.helm import Helm
from kaapana_nb.errors import PlatformError
from kaapana_nb.settings import Settings

pytestmark = pytest.mark.charts


def settings_with(directory: Path, script: str) -> Settings:
    settings = Settings(home=directory, workspace=directory / "workspace", jobs=1)
    settings.bin_dir.mkdir(parents=True)
    program = settings.bin_dir / "helm"
    program.write_text(script)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return settings


def test_the_major_is_the_versions(helm: Helm) -> None:
    assert helm.major in (3, 4)
    assert helm.version.startswith(f"v{helm.major}.")


def test_a_missing_program_has_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PlatformError, match="no helm, neither in") as caught:
        Helm.find(Settings(home=tmp_path, workspace=tmp_path, jobs=1))
    assert "make setup" in caught.value.remedy


def test_a_program_that_does_not_run_has_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="cannot be run"):
        Helm.find(settings_with(tmp_path, "\x7fELF no program"))


def test_nothing_of_the_users_is_seen_and_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HELM_CONFIG_HOME", "KUBECONFIG", "HELM_PLUGINS", "SECRET_TOKEN"):
        monkeypatch.setenv(name, "the-users-own")
    script = '#!/bin/sh\n[ "$1" = version ] && env > "$(dirname "$0")/seen"\necho v3.0.0\n'
    settings = settings_with(tmp_path, script)
    assert Helm.find(settings).version == "v3.0.0"
    seen = dict(line.split("=", 1) for line in (settings.bin_dir / "seen").read_text().splitlines())
    assert "the-users-own" not in seen.values()
    assert seen["HTTPS_PROXY"] == "http://127.0.0.1:9"
    assert not Path(seen["HOME"]).exists()


def test_a_repository_in_the_network_is_not_reached(helm: Helm, tmp_path: Path) -> None:
    chart = tmp_path / "chart"
    chart.mkdir()
    dependency = "dependencies: [{name: x, version: 1.0.0, repository: 'https://charts.example.org'}]\n"
    (chart / "Chart.yaml").write_text(f"apiVersion: v2\nname: chart\nversion: 1.0.0\n{dependency}")
    with pytest.raises(PlatformError, match="helm dependency of chart failed"):
        helm.update_dependencies(chart)


@pytest.mark.parametrize("value", ["plain", "a,b", "{a}", "a\\b", "x[0]", "a=b"])
def test_values_arrive_as_they_are(helm: Helm, tmp_path: Path, value: str) -> None:
    chart = tmp_path / "chart"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: chart\nversion: 1.0.0\n")
    (chart / "templates" / "value.yaml").write_text("value: {{ .Values.given | toJson }}\n")
    assert manifests(helm.template(chart, sets={"given": value})) == [{"value": value}]


def test_an_error_quotes_the_chart(helm: Helm) -> None:
    with pytest.raises(PlatformError, match=r"helm template of dag-installer-chart failed:\n.*global\.image") as caught:
        helm.template(INSTALLER, sets=PLATFORM["0.6"])
    assert caught.value.remedy.startswith("Correct the chart")
