"""The engine under the routes, without HTTP: started, asked, changed while it is asked, and closed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from core.config.choices import StrategyChoice
from core.errors import CannotUpdate, LoadFailed, NotReady, StartupFailed, UnknownModel, UnknownStrategy
from core.plugins import load_plugins
from core.residency.events import Loaded, Unloaded
from core.serving.engine import Engine
from core.serving.events import Ended, Event
from core.serving.observers import Observers
from core.serving.state_file import StateFile
from core.serving.strategy import DeclaredStrategy
from tests.helpers.fakes import SIZE
from tests.helpers.support import FAKES, SECONDS, checkpoint_in, gated, wait_for

LEARNER = """
import pluggy

class Learner:
    "Counts requests."
    name = "learner"
    def __init__(self, *, most: int = 2):
        self.capacity, self.seen, self.told = most, 0, []
    def start(self, models):
        self.told.append(("start", sorted(models)))
        return ()
    def requested(self, model_id, now):
        self.seen += 1
    def loaded(self, model, reason, now):
        self.told.append(("loaded", model.model_id, reason))
    def state(self):
        return {"seen": self.seen}
    def restore(self, state):
        self.seen = state["seen"]

@pluggy.HookimplMarker("residency")
def register_strategies():
    return [Learner]
"""


def declared(*choices: tuple[str, Mapping[str, Any]], plugins: Sequence[str] = (), loader: str = "fake") -> Any:
    known = load_plugins([FAKES, *plugins])
    return [
        DeclaredStrategy.of(
            StrategyChoice.model_validate({"strategy": name, "options": dict(options), "loader": loader}), known, {}
        )
        for name, options in choices
    ]


def references(folder: Path, names: str) -> dict[str, str]:
    """Of checkpoints with these names of one letter, which are made where they are not there."""
    return {name: str(folder / name if (folder / name).exists() else checkpoint_in(folder / name)) for name in names}


@contextmanager
def started(models: Mapping[str, str], strategies: Any, **more: Any) -> Iterator[tuple[Engine, list[Event]]]:
    engine = Engine(models, strategies, **more)
    events: list[Event] = []
    engine.subscribe(events.append)
    engine.start()
    try:
        yield engine, events
    finally:
        engine.close()


def slots_in_use(engine: Engine, strategy: str, model_id: str) -> int:
    """Requests that are not answered yet."""
    return engine.running[strategy].dispatcher.queues[model_id].slots_in_use


def held(engine: Engine, strategy: str) -> list[str]:
    return [model.model_id for model in engine.resident()[strategy]]


async def ask(engine: Engine, strategy: str, models: str, *, alone: bool = True) -> None:
    """In turn; who is `alone` sees to it that each model is released, which answers do not wait for."""

    def is_released() -> bool:
        look = engine.running[strategy].keeper.status(model_id)
        return look is None or look.leases == 0

    for model_id in models:
        answer = await engine.run(strategy, model_id, ["good"], SECONDS)
        assert [label for label, _ in answer.results] == ["POSITIVE"]
        if alone:
            await asyncio.to_thread(wait_for, is_released)


def test_it_answers_and_tells_what_happens(tmp_path: Path) -> None:
    with started(references(tmp_path, "abc"), declared(("lru-cached", {"capacity": 2}))) as (engine, events):
        asyncio.run(ask(engine, "lru-cached", "abca"))
        with pytest.raises(UnknownStrategy):
            asyncio.run(ask(engine, "persistent", "a"))
        assert held(engine, "lru-cached") == ["c", "a"]
        [resident, _] = engine.resident()["lru-cached"]
        assert (resident.uses, resident.nbytes, resident.load_waiters) == (1, SIZE, 1)
    loads = [event.model_id for event in events if isinstance(event, Loaded)]
    unloads = [(event.model_id, event.reason) for event in events if isinstance(event, Unloaded)]
    ended = [(event.model_id, event.outcome) for event in events if isinstance(event, Ended)]
    assert loads == ["a", "b", "c", "a"]
    assert unloads == [("a", "capacity"), ("b", "capacity"), ("c", "shutdown"), ("a", "shutdown")]
    assert ended == [(model_id, "answered") for model_id in "abca"]


def test_a_listener_that_fails_harms_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with started(references(tmp_path, "a"), declared(("persistent", {}))) as (engine, events):
        engine.subscribe(lambda event: divmod(1, 0) and None)
        engine.subscribe(Observers(load_plugins().manager.hook).notify)
        asyncio.run(ask(engine, "persistent", "a"))
    assert "A listener failed" in caplog.text
    assert any(isinstance(event, Ended) for event in events)


def test_before_it_is_started_and_after_it_is_closed_nobody_is_answered(tmp_path: Path) -> None:
    engine = Engine(references(tmp_path, "a"), declared(("persistent", {})))
    with pytest.raises(NotReady):
        asyncio.run(ask(engine, "persistent", "a"))
    engine.start()
    engine.close()
    with pytest.raises(NotReady):
        asyncio.run(ask(engine, "persistent", "a"))
    engine.close()


def test_one_that_cannot_start_says_so_and_does_not_end_the_process(tmp_path: Path) -> None:
    engine = Engine({"a": str(tmp_path / "nowhere")}, declared(("persistent", {})))
    with pytest.raises(StartupFailed, match="Model 'a': "):
        engine.start()
    engine.close()
    budget = Engine(references(tmp_path, "a"), declared(("lru-cached", {"memory_budget": SIZE - 1})))
    with pytest.raises(StartupFailed, match="Strategy 'lru-cached' cannot start: model 'a' takes"):
        budget.start()
    budget.close()


def test_models_come_and_go_while_requests_run(tmp_path: Path) -> None:
    strategies: Any = (("persistent", {}), ("lru-cached", {"capacity": 2}))
    models = references(tmp_path, "ab")
    with started(models, declared(*strategies)) as (engine, events):

        async def scenario() -> None:
            over = False

            async def keep_asking() -> int:
                asked = 0
                while not over:
                    await ask(engine, "persistent", "b", alone=False)
                    await ask(engine, "lru-cached", "b", alone=False)
                    asked += 1
                return asked

            callers = [asyncio.create_task(keep_asking()) for _ in range(4)]
            await ask(engine, "lru-cached", "ab")
            await engine.update(references(tmp_path, "bc"), declared(*strategies))
            assert engine.model_ids == ("b", "c")
            assert held(engine, "persistent") == ["b", "c"]
            assert held(engine, "lru-cached") == ["b"]
            await ask(engine, "lru-cached", "c")
            with pytest.raises(UnknownModel):
                await ask(engine, "persistent", "a")
            await engine.update(references(tmp_path, "ab"), declared(*strategies))
            await ask(engine, "persistent", "ab")
            over = True
            assert all([await caller for caller in callers])

        asyncio.run(scenario())
    assert {event.outcome for event in events if isinstance(event, Ended)} == {"answered"}
    gone = [
        (event.strategy, event.model_id)
        for event in events
        if isinstance(event, Unloaded) and event.reason == "removed"
    ]
    assert sorted(gone) == [("lru-cached", "a"), ("lru-cached", "c"), ("persistent", "a"), ("persistent", "c")]


def test_a_model_that_goes_answers_those_who_wait_for_it(tmp_path: Path) -> None:
    models = references(tmp_path, "ab")
    with started(models, declared(("on-demand", {}))) as (engine, events):

        async def scenario() -> None:
            with gated(tmp_path / "a") as gate:
                waiting = [asyncio.create_task(ask(engine, "on-demand", "a", alone=False)) for _ in range(3)]
                await asyncio.to_thread(gate.wait_for_load)
                update = asyncio.create_task(engine.update({"b": models["b"]}, declared(("on-demand", {}))))
                await asyncio.to_thread(wait_for, lambda: "a" not in engine.models)
                with pytest.raises(UnknownModel):
                    await ask(engine, "on-demand", "a")
                assert not update.done()
                gate.open()
                await asyncio.gather(*waiting)
                await update

        asyncio.run(scenario())
        assert engine.versions.get("a") is None
    assert [event.outcome for event in events if isinstance(event, Ended)] == ["answered"] * 3


def test_a_model_that_hangs_keeps_no_change_from_being_made(tmp_path: Path) -> None:
    models = references(tmp_path, "ab")
    with started(models, declared(("on-demand", {}), ("lru-cached", {}))) as (engine, _):

        async def scenario() -> None:
            with gated(tmp_path / "a") as gate:
                hanging = asyncio.create_task(ask(engine, "on-demand", "a", alone=False))
                await asyncio.to_thread(gate.wait_for_load)
                strategies = declared(("on-demand", {}), ("lru-cached", {"capacity": 1}))
                await engine.update({"b": models["b"]}, strategies, drain_timeout=0.01)
                assert engine.declared["lru-cached"].options == {"capacity": 1}
                await ask(engine, "lru-cached", "b")
                assert not hanging.done()
                gate.open()
                with pytest.raises(LoadFailed, match="is no longer served"):
                    await hanging

        asyncio.run(scenario())


def test_another_checkpoint_takes_a_models_place(tmp_path: Path) -> None:
    models = references(tmp_path, "ab")
    with started({"m": models["a"]}, declared(("persistent", {}))) as (engine, events):
        asyncio.run(engine.update({"m": models["b"]}, declared(("persistent", {}))))
        known = engine.versions.get("m")
        assert known is not None
        assert known.directory.name == "b"
        asyncio.run(ask(engine, "persistent", "m"))
    assert [event.reason for event in events if isinstance(event, Unloaded)] == ["removed", "shutdown"]


def test_what_is_in_memory_stays_as_far_as_other_options_keep_it(tmp_path: Path) -> None:
    models = references(tmp_path, "abc")
    with started(models, declared(("lru-cached", {"capacity": 3}), ("keep-alive", {}))) as (engine, events):

        async def scenario() -> None:
            await ask(engine, "lru-cached", "abc")
            await ask(engine, "keep-alive", "ab")
            await engine.update(
                models, declared(("lru-cached", {"capacity": 2}), ("keep-alive", {"ttl": 0, "pin": ["a"]}))
            )
            assert held(engine, "lru-cached") == ["b", "c"]
            assert held(engine, "keep-alive") == ["a"]
            await engine.update(models, declared(("lru-cached", {"capacity": 3}), ("keep-alive", {"preload": ["c"]})))
            await ask(engine, "lru-cached", "a")
            assert held(engine, "lru-cached") == ["b", "c", "a"]
            assert held(engine, "keep-alive") == ["a", "c"]

        asyncio.run(scenario())
    assert sum(isinstance(event, Loaded) for event in events) == 7


@pytest.mark.parametrize("share", [False, True])
def test_a_strategy_may_begin_or_cease_to_share(tmp_path: Path, share: bool) -> None:
    models = references(tmp_path, "a")
    with started(models, declared(("on-demand", {"share": share}))) as (engine, events):

        async def scenario() -> None:
            with gated(tmp_path / "a") as gate:
                before = [asyncio.create_task(ask(engine, "on-demand", "a", alone=False)) for _ in range(3)]
                await asyncio.to_thread(gate.wait_for_load)
                await engine.update(models, declared(("on-demand", {"share": not share})))
                after = [asyncio.create_task(ask(engine, "on-demand", "a", alone=False)) for _ in range(3)]
                await asyncio.to_thread(wait_for, lambda: slots_in_use(engine, "on-demand", "a") == 6)
                gate.open()
                await asyncio.gather(*before, *after)
            await asyncio.to_thread(wait_for, lambda: held(engine, "on-demand") == [])  # answers leave before

        asyncio.run(scenario())
    assert {event.outcome for event in events if isinstance(event, Ended)} == {"answered"}


@pytest.mark.parametrize(
    ("models", "choices", "loader", "sentence"),
    [
        ("ax", [("lru-cached", {})], "fake", "is not a checkpoint|does not exist|no such|x"),
        (
            "ab",
            [("lru-cached", {"memory_budget": SIZE - 1})],
            "fake",
            "model 'a' takes 999B|more than the memory_budget",
        ),
        ("ab", [("persistent", {})], "fake", "strategies: restart the server to use others than lru-cached"),
        ("ab", [("lru-cached", {})], "mapped", "strategies: restart the server to change the loader of 'lru-cached'"),
    ],
)
def test_a_change_that_is_refused_changes_nothing(
    tmp_path: Path, models: str, choices: Any, loader: str, sentence: str
) -> None:
    wanted = {name: str(tmp_path / name) for name in models}
    with started(references(tmp_path, "abc"), declared(("lru-cached", {"capacity": 2}))) as (engine, _):

        async def scenario() -> None:
            await ask(engine, "lru-cached", "abc")
            with pytest.raises(CannotUpdate, match=sentence):
                await engine.update(wanted, declared(*choices, loader=loader))
            assert engine.model_ids == ("a", "b", "c")
            assert held(engine, "lru-cached") == ["b", "c"]
            await ask(engine, "lru-cached", "abc")

        asyncio.run(scenario())
        assert list(engine.unavailable()) == []


def test_a_checkpoint_that_cannot_be_loaded_takes_nobodys_place(tmp_path: Path) -> None:
    models = references(tmp_path, "ab")
    (tmp_path / "b" / "broken").touch()
    with started({"m": models["a"]}, declared(("persistent", {}))) as (engine, _):
        with pytest.raises(CannotUpdate, match="Loading model 'm' failed"):
            asyncio.run(engine.update({"m": models["b"]}, declared(("persistent", {}))))
        assert engine.versions.references["m"] == models["a"]
        asyncio.run(ask(engine, "persistent", "m"))


def test_models_are_loaded_and_freed_by_hand(tmp_path: Path) -> None:
    with started(references(tmp_path, "ab"), declared(("keep-alive", {}))) as (engine, events):

        async def scenario() -> None:
            await engine.load("keep-alive", "a")
            assert held(engine, "keep-alive") == ["a"]
            await engine.unload("keep-alive", "a")
            assert held(engine, "keep-alive") == []
            (tmp_path / "b" / "broken").touch()
            with pytest.raises(LoadFailed, match="Loading model 'b' failed"):
                await engine.load("keep-alive", "b")

        asyncio.run(scenario())
    assert [event.reason for event in events if isinstance(event, Loaded | Unloaded)] == ["manual", "manual"]


def test_what_a_strategy_has_learned_survives_a_restart(tmp_path: Path) -> None:
    (tmp_path / "learner.py").write_text(LEARNER)
    file, models = tmp_path / "state.json", references(tmp_path, "ab")

    def learner(**options: Any) -> Any:
        return declared(("learner", options), ("persistent", {}), plugins=[str(tmp_path / "learner.py")])

    with started(models, learner(), state=StateFile(file)) as (engine, _):
        asyncio.run(ask(engine, "learner", "aab"))
    assert json.loads(file.read_text()) == {"format": 1, "strategies": {"learner": {"seen": 3}}}
    with started(models, learner(), state=StateFile(file)) as (engine, _):
        asyncio.run(ask(engine, "learner", "a"))
        asyncio.run(engine.update(models, learner(most=1)))  # another object goes on with it, and hears of what stays
        strategy = engine.declared["learner"].decisions.strategy
        assert (strategy.seen, strategy.told) == (4, [("start", ["a", "b"]), ("loaded", "a", "request")])
        asyncio.run(ask(engine, "learner", "b"))
    assert json.loads(file.read_text())["strategies"]["learner"] == {"seen": 5}
    with started(models, declared(("persistent", {})), state=StateFile(file)):
        pass
    broken = Engine(models, [*learner(), *declared(("lru-cached", {"memory_budget": 1}))], state=StateFile(file))
    with pytest.raises(StartupFailed):
        broken.start()
    broken.close()
    assert json.loads(file.read_text())["strategies"]["learner"] == {"seen": 5}


def test_what_is_learned_is_written_while_it_runs(tmp_path: Path) -> None:
    (tmp_path / "learner.py").write_text(LEARNER)
    file, models = tmp_path / "state.json", references(tmp_path, "a")
    learner = declared(("learner", {}), plugins=[str(tmp_path / "learner.py")])
    with started(models, learner, state=StateFile(file, every=0.01)) as (engine, _):
        asyncio.run(ask(engine, "learner", "a"))
        wait_for(lambda: file.exists() and json.loads(file.read_text())["strategies"]["learner"] == {"seen": 1})


def test_a_state_that_cannot_be_written_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "learner.py").write_text(LEARNER)
    learner = declared(("learner", {}), plugins=[str(tmp_path / "learner.py")])
    file = tmp_path / "folder" / "state.json"
    engine = Engine(references(tmp_path, "a"), learner, state=StateFile(file))
    with pytest.raises(StartupFailed, match=r"state: there is no folder .*folder; make it"):
        engine.start()
    engine.close()
    file.parent.mkdir()
    with started(references(tmp_path, "a"), learner, state=StateFile(file)) as (engine, _):
        asyncio.run(ask(engine, "learner", "a"))
        file.parent.rmdir()
    assert "state.json cannot be written, so what is learned will be lost: No such file" in caplog.text


@pytest.mark.parametrize("content", ["", "[]", '{"format": 2, "strategies": {}}', '{"format": 1}'])
def test_a_file_that_holds_no_state_is_told_and_kept(tmp_path: Path, content: str) -> None:
    file = tmp_path / "state.json"
    file.write_text(content)
    engine = Engine(references(tmp_path, "a"), declared(("persistent", {})), state=StateFile(file))
    with pytest.raises(StartupFailed, match=r"state: .*state.json does not hold .* move it away"):
        engine.start()
    engine.close()
    assert file.read_text() == content
