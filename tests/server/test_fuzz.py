"""Requests that nobody thought of: against the API's own description, and any text that there is."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers.support import SECONDS, TASK_LOADER, uvicorn

TOKEN = "a token of the fuzz tests"
FAKE = (
    "[{strategy: persistent, loader: tasks}, {strategy: on-demand, loader: tasks},"
    " {strategy: lru-cached, loader: tasks}]"
)
REAL = "[{strategy: persistent, loader: mapped}, {strategy: on-demand, loader: mapped}]"
TEXTS = st.lists(st.text(st.characters(codec="utf-8"), max_size=300), min_size=1, max_size=8)
CASES = settings(
    max_examples=100,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server") / "log"


@pytest.fixture(scope="module")
def fake(log: Path) -> Iterator[httpx.Client]:
    variables = {
        "RESIDENCY_PLUGINS": TASK_LOADER,
        "RESIDENCY_STRATEGIES": FAKE,
        "RESIDENCY_MODELS": "{a: embedded, b: embedded}",
        "RESIDENCY_TOKEN": TOKEN,
    }
    with uvicorn(log, "--no-access-log", variables=variables) as client:
        yield client


@pytest.fixture
def real(tmp_path: Path) -> Iterator[httpx.Client]:
    with uvicorn(
        tmp_path / "log", "--no-access-log", variables={"RESIDENCY_STRATEGIES": REAL, "RESIDENCY_TOKEN": TOKEN}
    ) as client:
        yield client


def keeps_its_description(client: httpx.Client, folder: Path, examples: int) -> int:
    """Run all of schemathesis' checks in all its phases, sequences of requests among them; the number of cases."""
    command = [
        sys.executable,
        "-m",
        "schemathesis.cli",
        "--config-file",
        str(Path(__file__).with_name("schemathesis.toml")),
    ]
    command += ["run", f"{client.base_url}/openapi.json", "--checks", "all", "--max-examples", str(examples)]
    command += ["--seed", "1", "--generation-database", "none", "--no-color", "-H", f"Authorization: Bearer {TOKEN}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60 * SECONDS, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    assert "✅ Stateful" in done.stdout
    found = re.search(r"(\d+) generated", done.stdout)
    assert found is not None
    return int(found[1])


def predicts(client: httpx.Client, model: str, texts: list[str]) -> list[str]:
    """The labels: one for each text, whatever it is."""
    answer = client.post("/predict", json={"texts": texts, "model": model})
    assert answer.status_code == 200, answer.text
    predictions = answer.json()["predictions"]
    assert len(predictions) == len(texts)
    assert all(0 <= prediction["score"] <= 1 for prediction in predictions)
    return [prediction["label"] for prediction in predictions]


def test_the_api_keeps_its_own_description(fake: httpx.Client, log: Path, tmp_path: Path) -> None:
    assert keeps_its_description(fake, tmp_path, 5) >= 200
    assert "Traceback" not in log.read_text()


@CASES
@given(TEXTS)
def test_any_text_gets_its_answer(fake: httpx.Client, texts: list[str]) -> None:
    expected = ["POSITIVE" if "good" in text else "NEGATIVE" for text in texts]
    assert predicts(fake, "a", texts) == expected


@pytest.mark.slow
def test_the_api_keeps_its_own_description_under_a_real_model(real: httpx.Client, tmp_path: Path) -> None:
    assert keeps_its_description(real, tmp_path, 1500) >= 10_000


@pytest.mark.slow
@settings(CASES, max_examples=10_000)
@given(TEXTS)
def test_any_text_gets_the_same_answer_under_a_real_model(real: httpx.Client, texts: list[str]) -> None:
    assert set(predicts(real, "embedded", texts)) <= {"POSITIVE", "NEGATIVE"}
