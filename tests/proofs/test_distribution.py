"""What a stranger installs: one top-level name, a command, and a server, without the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.helpers.support import ROOT, SECONDS, read_json, wait_for


def project() -> dict[str, dict[str, object]]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that a wheel of this checkout was installed into."""
    place = tmp_path_factory.mktemp("distribution")
    source = place / "source"
    for name in ("core", "strategies"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(place), str(source)]
    subprocess.run(build, check=True, capture_output=True, timeout=SECONDS)
    [wheel] = place.glob("*.whl")
    target = place / "installed"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(target), str(wheel)], check=True, timeout=SECONDS)
    yield target
    shutil.rmtree(place)


def environment(installed: Path) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PYTHONPATH": str(installed)}


def test_every_package_is_listed() -> None:
    packages = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "core").rglob("__init__.py")}
    named = {each.replace("core", "residency", 1).replace("/", ".") for each in packages} | {"residency.strategies"}
    tool = project()["tool"]["setuptools"]
    assert isinstance(tool, dict)
    assert set(tool["packages"]) == named


def test_it_brings_no_generic_name(installed: Path) -> None:
    names = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert names <= {"residency", "bin"}
    assert (installed / "residency" / "py.typed").exists()


@pytest.mark.slow
def test_the_command_runs_an_experiment(installed: Path, tmp_path: Path) -> None:
    shutil.copy(ROOT / "experiments" / "default.yaml", tmp_path)
    flags = ("--strategies", "on-demand", "--repetitions", "2", "--repeats", "1", "--output", "out")
    command = [sys.executable, str(installed / "bin" / "residency"), "default.yaml", *flags]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(installed), capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    [summary] = (tmp_path / "out").rglob("summary.json")
    assert {trial["strategy"] for trial in read_json(summary)["trials"]} == {"on-demand"}
    listed = subprocess.run(
        [*command[:2], "plugins"], cwd=tmp_path, env=environment(installed), capture_output=True, text=True, check=True
    )
    assert "persistent (built in)" in listed.stdout


def test_it_serves(installed: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "uvicorn", "residency.app:app", "--uds", str(tmp_path / "socket")]
    server = subprocess.Popen(command, cwd=tmp_path, env=environment(installed), stderr=subprocess.PIPE)
    try:
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=str(tmp_path / "socket")), base_url="http://localhost"
        ) as client:
            wait_for((tmp_path / "socket").exists)
            wait_for(lambda: client.get("/readyz").status_code == 200)
            answer = client.post("/predict", json={"text": "I absolutely love this product."}).json()
            assert answer["predictions"][0]["label"] == "POSITIVE"
    finally:
        server.terminate()
        server.communicate(timeout=SECONDS)
