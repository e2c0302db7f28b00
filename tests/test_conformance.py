"""One suite over every strategy and loader that there is: whoever adds one finds it in here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import pytest

from core.choices import Batching
from core.contracts import Model
from core.errors import LoadFailed
from core.plugins import Registered, load_plugins
from core.serving.answer import Answer
from core.serving.dispatcher import Dispatcher
from core.serving.host import Host
from tests.support import FAKES, SECONDS, checkpoint_in, host_of, in_threads, wait_for

PLUGINS = load_plugins([FAKES])
TEXTS = ["This is good, I love it.", "This is terrible, I hate it."]
LABELS = ["POSITIVE", "NEGATIVE"]
CHOICES: list[tuple[str, dict[str, Any]]] = [  # every strategy, and options that make another one of it
    *((name, {}) for name in PLUGINS.strategies),
    ("on-demand", {"share": True}),
    ("lru-cached", {"capacity": 1}),
    ("keep-alive", {"ttl": "auto"}),
]


class Started:
    """A strategy at work, with its host."""

    def __init__(self, registered: Registered, host: Host, **options: Any) -> None:
        self.host = host
        self.strategy: Any = registered.cls(host, **options)
        self.shares = getattr(self.strategy, "shares", True)
        getattr(self.strategy, "start", lambda: None)()

    def acquire(self, model_id: str) -> AbstractContextManager[Model]:
        acquired: AbstractContextManager[Model] = self.strategy.acquire(model_id)
        return acquired

    def predict(self, model_id: str) -> list[str]:
        with self.acquire(model_id) as model:
            return [label for label, _ in model.predict(TEXTS)]

    def close(self) -> None:
        getattr(self.strategy, "close", lambda: None)()


@pytest.fixture(
    params=[
        # OpenVINO's threads stay in a process for good, which the tests that come later would share.
        pytest.param(name, marks=[pytest.mark.slow] if name == "openvino" else [])
        for name in PLUGINS.loaders
    ]
)
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Host:
    loader = PLUGINS.loader(request.param).cls()
    return host_of(loader, *(checkpoint_in(tmp_path / name) for name in "abc"))


@pytest.fixture(params=CHOICES, ids=lambda choice: f"{choice[0]} {choice[1] or ''}".strip())
def started(request: pytest.FixtureRequest, host: Host) -> Iterator[Started]:
    name, options = request.param
    started = Started(PLUGINS.strategy(name), host, **options)
    yield started
    started.close()


def test_answers(started: Started) -> None:
    assert [started.predict(model_id) for model_id in "aabca"] == [LABELS] * 5


def test_frees_everything_when_closed(started: Started) -> None:
    for model_id in "abcab":
        started.predict(model_id)
    started.close()
    assert started.host.resident() == []
    assert started.host.loads == started.host.unloads > 0
    assert started.host.unload_seconds > 0


def test_serves_many_threads_at_a_time(started: Started) -> None:
    answers = in_threads(12, lambda i: [started.predict("abc"[(i + j) % 3]) for j in range(4)])
    assert answers == [[LABELS] * 4] * 12


def test_frees_the_model_when_its_user_fails(started: Started) -> None:
    with pytest.raises(ZeroDivisionError), started.acquire("a"):
        raise ZeroDivisionError
    assert started.predict("a") == LABELS


def test_a_model_that_raises_stop_iteration_is_answered(started: Started) -> None:
    """A stray `next` in a plugin; asyncio takes that exception from nobody."""

    def fail(texts: object) -> None:
        next(iter(()))

    async def ask() -> list[BaseException | Answer]:
        with ThreadPoolExecutor(1) as compute:
            dispatcher = Dispatcher(started.strategy, started.host, compute, Batching())
            await dispatcher.predict("a", TEXTS, SECONDS)
            for model in started.host.resident():
                model.predict = fail  # type: ignore[assignment, method-assign]
            return await asyncio.gather(
                *(dispatcher.predict("a", TEXTS, SECONDS) for _ in range(3)), return_exceptions=True
            )

    for outcome in asyncio.run(asyncio.wait_for(ask(), SECONDS)):
        assert isinstance(outcome, RuntimeError | Answer)


def test_answers_again_after_a_failed_load(started: Started, tmp_path: Path) -> None:
    config = tmp_path / "b" / "config.json"
    whole = config.read_bytes()
    config.unlink()  # what lies behind the link stays
    config.write_text("{}")
    (tmp_path / "b" / "broken").touch()  # for the fake loader
    if "b" not in [model.model_id for model in started.host.resident()]:  # not loaded at the start
        with pytest.raises(LoadFailed, match="'b'") as failure:
            started.predict("b")
        assert str(tmp_path) not in str(failure.value)
    assert started.predict("a") == LABELS
    config.write_bytes(whole)
    (tmp_path / "b" / "broken").unlink()
    wait_for(lambda: _answers(started, "b"))  # a failure may be remembered, for a short time


def _answers(started: Started, model_id: str) -> bool:
    with suppress(LoadFailed):
        return started.predict(model_id) == LABELS
    return False


def test_reports_cold_and_counts_loads(started: Started) -> None:
    """Through the dispatcher, as a request comes: loads equal requests where nothing is shared, and only there."""
    before = started.host.loads

    async def ask() -> list[Answer]:
        with ThreadPoolExecutor(1) as compute:
            dispatcher = Dispatcher(started.strategy, started.host, compute, Batching())
            return await asyncio.gather(*(dispatcher.predict("a", TEXTS, SECONDS) for _ in range(8)))

    answers = asyncio.run(ask())
    assert all([label for label, _ in answer.predictions] == LABELS for answer in answers)
    loads = started.host.loads - before
    assert loads == 8 if not started.shares else loads < 8
    assert all(answer.cold == (loads > 0) for answer in answers)
    assert all(answer.load >= sum(answer.phases.values()) for answer in answers)
    assert all((answer.load > 0) == answer.cold for answer in answers)
    assert all(answer.queue >= 0 and answer.inference > 0 for answer in answers)
