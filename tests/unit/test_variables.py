"""Whose an environment variable is, and that an empty one is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.checkpoints.cache import cache_directory
from core.config.settings import ELSEWHERE, Settings, settings_from_environment
from core.config.variables import INJECTED, PREFIX
from core.errors import ResidencyError
from core.plugins import load_plugins
from core.serving.service import Service
from tests.helpers.support import ROOT, run_python

ADDRESS = "tcp://10.96.7.1:8001"
# As Kubernetes names them for `residency`, `residency-gpu` and `residency-2`, and Docker for links of these aliases.
FOREIGN = {
    f"RESIDENCY_{alias}{name}": value
    for alias in ("", "GPU_", "2_", "MODELS_EU_")
    for name, value in {
        "SERVICE_HOST": "10.96.7.1",
        "SERVICE_PORT": "8001",
        "SERVICE_PORT_HTTP": "8001",
        "SERVICE_PORT_GRPC_WEB": "8002",
        "PORT": ADDRESS,
        "PORT_8001_TCP": ADDRESS,
        "PORT_8001_TCP_ADDR": "10.96.7.1",
        "PORT_8001_TCP_PROTO": "tcp",
        "PORT_8001_TCP_PORT": "8001",
        "PORT_53_UDP": "udp://10.96.7.1:53",
        "PORT_53_UDP_PROTO": "udp",
        "PORT_9_SCTP_ADDR": "10.96.7.1",
        "PORT_8001_TCP_START": ADDRESS,
        "PORT_8001_TCP_PORT_END": "8009",
        "NAME": "/web/residency",
        "ENV_PATH": "/usr/bin",
        "ENV_RESIDENCY_MODELS": "{a: embedded}\n",
    }.items()
}


def test_what_kubernetes_and_docker_inject_does_not_stop_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in FOREIGN.items():
        monkeypatch.setenv(name, value)
    assert settings_from_environment() == Settings()


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("RESIDENCY_MODEL", "RESIDENCY_MODELS"),
        ("RESIDENCY_MODEL_NAME", "RESIDENCY_MODELS"),
        ("RESIDENCY_STRATEGY", "RESIDENCY_STRATEGIES"),
        ("RESIDENCY_ALLOWED_HOST", "RESIDENCY_ALLOWED_HOSTS"),
        ("RESIDENCY_CONFG", "RESIDENCY_CONFIG"),
        ("RESIDENCY_SERVICE_HOSTS", None),
        ("RESIDENCY_PORT", None),  # of Kubernetes it is tcp://10.0.0.1:80
        ("RESIDENCY_SERVICE_PORT", None),
        ("RESIDENCY_NAME", None),
        ("RESIDENCY_PORTS", None),
        ("RESIDENCY_PORT_80", None),
        ("RESIDENCY_", None),
    ],
)
def test_a_misspelt_variable_is_refused_with_what_may_be_meant(
    name: str, nearest: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "embedded")
    with pytest.raises(ResidencyError, match=rf"^The variable {name} is not a setting; .*allowed: RESIDENCY_") as told:
        settings_from_environment()
    if nearest:
        assert f"did you mean {nearest}?" in str(told.value)


def test_no_setting_has_a_name_that_may_be_injected() -> None:
    for name in (*Settings.model_fields, *ELSEWHERE):
        assert not INJECTED.fullmatch(f"{PREFIX}{name.upper()}=/a")


def test_an_empty_variable_is_as_good_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Compose makes of `RESIDENCY_TOKEN=${TOKEN}` where there is no TOKEN."""
    config = tmp_path / "app.yaml"
    config.write_text("{models: {mine: embedded}, max_texts: 7, strategies: [on-demand]}")
    monkeypatch.setenv("RESIDENCY_CONFIG", str(config))
    wanted = settings_from_environment()
    for name in (*(field.upper() for field in Settings.model_fields), "MISSPELT"):
        monkeypatch.setenv(f"{PREFIX}{name}", "")
    assert settings_from_environment() == wanted  # the file's values, not the defaults
    monkeypatch.setenv("RESIDENCY_CONFIG", "")
    assert settings_from_environment() == Settings.model_construct()
    config.write_text("max_texts: none")
    monkeypatch.setenv("RESIDENCY_CONFIG", str(config))
    with pytest.raises(ResidencyError, match=r"app.yaml:1:1: max_texts: "):  # not: the empty variable
        settings_from_environment()


def test_empty_folders_are_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESIDENCY_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_directory() == Path.home() / ".cache" / "residency"
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    Service(Settings(), load_plugins([])).metrics.scrape()


@pytest.mark.process
def test_empty_variables_of_others_are_as_good_as_none(tmp_path: Path) -> None:
    """Also to what reads them when it is imported: no file of metrics appears in the current folder."""
    empty = ("PROMETHEUS_MULTIPROC_DIR", "OMP_NUM_THREADS", "GOMP_SPINCOUNT", "MALLOC_ARENA_MAX", "RESIDENCY_MODELS")
    script = "import os, core.app; core.app.create_app(); print(os.environ['GOMP_SPINCOUNT'], os.listdir())"
    variables = dict.fromkeys(empty, "") | {"PYTHONPATH": str(ROOT)}
    done = run_python("-c", script, cwd=tmp_path, variables=variables)
    assert (done.stdout, done.stderr) == ("3000 []\n", "")
