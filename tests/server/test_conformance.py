"""One suite over every strategy and loader that there is: whoever adds one finds it in here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from core.config.choices import Batching
from core.errors import LoadFailed
from core.plugins import load_plugins
from core.residency.decisions import Decisions
from core.residency.host import Host
from core.residency.keeper import Keeper
from core.serving.dispatcher import Dispatcher
from core.serving.events import Answer
from tests.helpers.support import FAKES, SECONDS, checkpoint_in, host_of, ids, in_threads, wait_for

PLUGINS = load_plugins([FAKES])
TEXTS = ["This is good, I love it.", "This is terrible, I hate it."]
LABELS = ["POSITIVE", "NEGATIVE"]
CHOICES: list[tuple[str, dict[str, Any]]] = [  # every strategy, and options that make another one of it
    *((name, {}) for name in PLUGINS.strategies),
    ("on-demand", {"share": True}),
    ("lru-cached", {"capacity": 1}),
    ("cached", {"capacity": 1}),
    ("keep-alive", {"ttl": "auto"}),
    ("keep-alive", {"ttl": "learned"}),
]
# A strategy knows nothing of loaders: each is tried with one, and each loader with those that load often.
FREQUENT = [choice for choice in CHOICES if choice in (("on-demand", {}), ("lru-cached", {"capacity": 1}))]
PAIRS = [
    *((choice, "fake") for choice in CHOICES),
    *((choice, loader) for loader in PLUGINS.loaders if loader != "fake" for choice in FREQUENT),
]

ONCE = [(choice, loader) for choice, loader in PAIRS if loader == "fake" or choice == FREQUENT[0]]  # seconds for each


def marks(loader: str) -> list[pytest.MarkDecorator]:
    """OpenVINO's threads stay in a process for good, which the tests that come later would share."""
    return [pytest.mark.slow] if loader == "openvino" else []


def host_with(loader: str, folder: Path) -> Host:
    return host_of(PLUGINS.loader(loader).cls(), *(checkpoint_in(folder / name) for name in "abc"))


@pytest.fixture(params=[pytest.param(name, marks=marks(name)) for name in PLUGINS.loaders])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Host:
    return host_with(request.param, tmp_path)


def parameters(pairs: Iterable[tuple[tuple[str, dict[str, Any]], str]]) -> list[Any]:
    return [
        pytest.param((*choice, loader), marks=marks(loader), id=f"{choice[0]} {choice[1] or ''} {loader}")
        for choice, loader in pairs
    ]


@pytest.fixture(params=parameters(PAIRS))
def keeper(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Keeper]:
    """A strategy at work."""
    name, options, loader = request.param
    host = host_with(loader, tmp_path)
    keeper = Keeper(Decisions(PLUGINS.strategy(name).cls(**options), name), host)
    keeper.start()
    yield keeper
    keeper.close()


def predict(keeper: Keeper, model_id: str) -> list[str]:
    with keeper.lease(model_id) as lent:
        lent.answered = 1
        return [label for label, _ in lent.model.predict(TEXTS)]


def test_answers(keeper: Keeper) -> None:
    assert [predict(keeper, model_id) for model_id in "aabca"] == [LABELS] * 5


def test_frees_everything_when_closed(keeper: Keeper) -> None:
    for model_id in "abcab":
        predict(keeper, model_id)
    keeper.close()
    assert keeper.residents() == []
    assert keeper.host.loads == keeper.host.unloads > 0
    assert keeper.host.unload_seconds > 0


def test_serves_many_threads_at_a_time(keeper: Keeper) -> None:
    answers = in_threads(12, lambda i: [predict(keeper, "abc"[(i + j) % 3]) for j in range(4)])
    assert answers == [[LABELS] * 4] * 12


def test_frees_the_model_when_its_user_fails(keeper: Keeper) -> None:
    with pytest.raises(ZeroDivisionError), keeper.lease("a"):
        raise ZeroDivisionError
    assert predict(keeper, "a") == LABELS


def test_a_model_that_raises_stop_iteration_is_answered(keeper: Keeper) -> None:
    """A stray `next` in a plugin; asyncio takes that exception from nobody."""

    def fail(*_: object) -> None:
        next(iter(()))

    async def ask() -> tuple[int, list[BaseException | Answer]]:
        with ThreadPoolExecutor(1) as compute:
            dispatcher = Dispatcher(keeper, compute, Batching())
            await dispatcher.predict("a", TEXTS, SECONDS)
            for copy in keeper.residents():
                copy.model.predict = fail
            loads = keeper.host.loads
            asked = (dispatcher.predict("a", TEXTS, SECONDS) for _ in range(3))
            return loads, await asyncio.gather(*asked, return_exceptions=True)

    loads, outcomes = asyncio.run(asyncio.wait_for(ask(), SECONDS))
    is_kept = keeper.host.loads == loads  # or another one is loaded, which answers
    assert [isinstance(outcome, RuntimeError if is_kept else Answer) for outcome in outcomes] == [True] * 3


@pytest.mark.parametrize("keeper", parameters(ONCE), indirect=True)
def test_answers_again_after_a_failed_load(keeper: Keeper, tmp_path: Path) -> None:
    config = tmp_path / "b" / "config.json"
    whole = config.read_bytes()
    config.unlink()  # what lies behind the link stays
    config.write_text("{}")
    (tmp_path / "b" / "broken").touch()  # for the fake loader
    if "b" not in ids(keeper):  # not loaded at the start
        with pytest.raises(LoadFailed, match="'b'") as failure:
            predict(keeper, "b")
        assert str(tmp_path) not in str(failure.value)
    assert predict(keeper, "a") == LABELS
    config.write_bytes(whole)
    (tmp_path / "b" / "broken").unlink()
    wait_for(lambda: _answers(keeper, "b"))  # a failure may be remembered, for a short time


def _answers(keeper: Keeper, model_id: str) -> bool:
    with suppress(LoadFailed):
        return predict(keeper, model_id) == LABELS
    return False


def test_reports_cold_and_counts_loads(keeper: Keeper) -> None:
    """Through the dispatcher, as a request comes: loads equal requests where nothing is shared, and only there."""
    before = keeper.host.loads

    async def ask() -> list[Answer]:
        with ThreadPoolExecutor(1) as compute:
            dispatcher = Dispatcher(keeper, compute, Batching())
            return await asyncio.gather(*(dispatcher.predict("a", TEXTS, SECONDS) for _ in range(8)))

    answers = asyncio.run(ask())
    assert all([label for label, _ in answer.results] == LABELS for answer in answers)
    loads = keeper.host.loads - before
    assert loads == 8 if not keeper.decisions.shared else loads < 8
    assert all(answer.cold == (loads > 0) for answer in answers)
    assert all(answer.load >= sum(answer.phases.values()) for answer in answers)
    assert all((answer.load > 0) == answer.cold for answer in answers)
    assert all(answer.queue >= 0 and answer.inference > 0 for answer in answers)
