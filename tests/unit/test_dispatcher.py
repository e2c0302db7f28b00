"""Batches, queue slots and deadlines, in one process with real threads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Event, Thread
from time import perf_counter
from typing import Any

import pytest

from core.config.choices import Batching
from core.contracts import Prediction
from core.errors import DeadlineExceeded, Overloaded
from core.loaders.mapped.loader import MappedLoader
from core.residency.keeper import Keeper
from core.serving.batch import estimate_tokens, split_into_parts
from core.serving.dispatcher import Dispatcher
from core.serving.events import Answer
from strategies.lru_cached import LruCached
from strategies.on_demand import OnDemand
from strategies.persistent import Persistent
from tests.helpers.fakes import FakeLoader
from tests.helpers.support import SECONDS, gated, keeper_of, wait_for

GOOD = Prediction("POSITIVE", 0.75)


class Slow:
    """A model's `predict` that waits until it is let go, and notes what it was asked together."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.began, self.go = Event(), Event()

    def __call__(self, texts: Sequence[str]) -> list[tuple[str, float]]:
        self.batches.append(list(texts))
        self.began.set()
        assert self.go.wait(SECONDS)
        if "poison" in texts:
            raise ValueError("cannot read this text")
        return [GOOD for _ in texts]


@asynccontextmanager
async def dispatching(
    keeper: Keeper, batching: Batching | None, max_queue: int = 100
) -> AsyncIterator[tuple[Dispatcher, Slow]]:
    """A dispatcher over `persistent`, whose one model is slow."""
    slow = Slow()
    loader = keeper.host.loader
    assert isinstance(loader, FakeLoader)
    loader.predict = slow
    with ThreadPoolExecutor(1) as compute:
        try:
            yield Dispatcher(keeper, compute, batching, max_queue), slow
        finally:
            slow.go.set()
    keeper.close()


async def computing(slow: Slow) -> None:
    await asyncio.to_thread(slow.began.wait, SECONDS)
    assert slow.began.is_set()


async def ask(dispatcher: Dispatcher, *texts: str, seconds: float = SECONDS) -> Answer:
    return await dispatcher.predict("a", texts, seconds)


class Counting(ThreadPoolExecutor):
    """Counts what it is given to do."""

    submitted = 0

    def submit(self, *arguments: Any, **options: Any) -> Future[Any]:
        self.submitted += 1
        return super().submit(*arguments, **options)


async def started(work: list[asyncio.Task[Answer]]) -> None:
    """Let each task run until it waits for its answer."""
    for _ in work:
        await asyncio.sleep(0)


@pytest.fixture
def keeper(checkpoints: list[Path]) -> Keeper:
    return keeper_of(Persistent(), FakeLoader(), checkpoints[0])


def test_those_who_wait_are_computed_together(keeper: Keeper) -> None:
    async def scenario() -> list[Answer]:
        async with dispatching(keeper, Batching()) as (dispatcher, slow):
            first = asyncio.create_task(ask(dispatcher, "first"))
            await computing(slow)
            rest = [asyncio.create_task(ask(dispatcher, f"{i}", f"long text {i}")) for i in range(4)]
            await started(rest)
            slow.go.set()
            answers = await asyncio.gather(first, *rest)
            assert slow.batches == [["first"], [*"0123", *(f"long text {i}" for i in range(4))]]
            return answers

    answers = asyncio.run(scenario())
    assert [answer.batch for answer in answers] == [1, 8, 8, 8, 8]
    assert all(answer.results == [GOOD] * len(answer.results) for answer in answers)
    assert [len(answer.results) for answer in answers] == [1, 2, 2, 2, 2]


@pytest.mark.parametrize(
    ("batching", "sizes"),
    [
        (Batching(), [1, 10, 8, 2]),  # half of those that wait, but no less than is efficient
        (Batching(max_batch_size=6), [1, 6, 6, 6, 2]),
        (None, [1] * 21),
    ],
)
def test_how_many_are_computed_together(keeper: Keeper, batching: Batching | None, sizes: list[int]) -> None:
    async def scenario() -> list[int]:
        async with dispatching(keeper, batching) as (dispatcher, slow):
            work = [asyncio.create_task(ask(dispatcher, "first"))]
            await computing(slow)
            work += [asyncio.create_task(ask(dispatcher, str(i))) for i in range(20)]
            await started(work)
            slow.go.set()
            await asyncio.gather(*work)
            return [len(batch) for batch in slow.batches]

    assert asyncio.run(scenario()) == sizes


def test_waits_for_a_batch_to_fill_only_when_told(keeper: Keeper) -> None:
    async def scenario() -> None:
        async with dispatching(keeper, Batching(max_batch_size=3, max_wait_ms=1000 * SECONDS / 2)) as (
            dispatcher,
            slow,
        ):
            slow.go.set()
            work = [asyncio.create_task(ask(dispatcher, str(i))) for i in range(3)]
            answers = await asyncio.gather(*work)
            assert slow.batches == [["0", "1", "2"]]
            assert max(answer.queue for answer in answers) < SECONDS / 4

    asyncio.run(scenario())


def test_a_request_that_breaks_its_batch_fails_alone(keeper: Keeper) -> None:
    async def scenario() -> list[Answer | BaseException]:
        async with dispatching(keeper, Batching()) as (dispatcher, slow):
            first = asyncio.create_task(ask(dispatcher, "first"))
            await computing(slow)
            rest = [asyncio.create_task(ask(dispatcher, text)) for text in ("fine", "poison", "well")]
            await started(rest)
            slow.go.set()
            return await asyncio.gather(first, *rest, return_exceptions=True)

    first, fine, poison, well = asyncio.run(scenario())
    assert isinstance(poison, ValueError)
    assert all(isinstance(answer, Answer) and answer.results == [GOOD] for answer in (first, fine, well))


def test_there_are_only_so_many_places(keeper: Keeper) -> None:
    async def scenario() -> None:
        async with dispatching(keeper, None, max_queue=2) as (dispatcher, slow):
            work = [asyncio.create_task(ask(dispatcher, "first"))]
            await computing(slow)
            work.append(asyncio.create_task(ask(dispatcher, "second")))
            await started(work)
            with pytest.raises(Overloaded, match="2 requests for this model wait already") as refused:
                await ask(dispatcher, "third")
            assert refused.value.seconds >= 1
            work[1].cancel()  # its client has gone
            await asyncio.wait(work[1:])
            work.append(asyncio.create_task(ask(dispatcher, "fourth")))
            await started(work)
            assert dispatcher.queues["a"].slots_in_use == 2
            slow.go.set()
            await asyncio.gather(work[0], work[2])
            assert dispatcher.queues["a"].slots_in_use == 0
            assert slow.batches == [["first"], ["fourth"]]

    asyncio.run(scenario())


def test_what_is_too_late_is_never_begun(keeper: Keeper) -> None:
    async def scenario() -> None:
        async with dispatching(keeper, Batching()) as (dispatcher, slow):
            first = asyncio.create_task(ask(dispatcher, "first", seconds=0.05))
            await computing(slow)
            with pytest.raises(DeadlineExceeded, match="deadline passed"):
                await ask(dispatcher, "late", seconds=0.05)
            slow.go.set()
            assert (await first).results == [GOOD]  # it had begun
            assert slow.batches == [["first"]]

    asyncio.run(scenario())


def test_nothing_is_loaded_for_those_who_have_gone(checkpoints: list[Path]) -> None:
    loader = FakeLoader()
    keeper = keeper_of(OnDemand(), loader, checkpoints[0])

    async def scenario() -> None:
        with ThreadPoolExecutor(1) as compute:
            dispatcher = Dispatcher(keeper, compute, Batching())
            free = Event()
            compute.submit(free.wait, SECONDS)
            work = [asyncio.create_task(ask(dispatcher, "first"))]
            await asyncio.to_thread(wait_for, lambda: loader.loads == 1)
            work += [asyncio.create_task(ask(dispatcher, str(i))) for i in range(5)]
            await started(work)
            for gone in work[1:]:
                gone.cancel()
            await asyncio.wait(work[1:])
            free.set()
            await work[0]

    asyncio.run(scenario())
    assert loader.loads == 1


def test_what_is_left_of_a_request_that_has_gone_is_not_computed(keeper: Keeper) -> None:
    async def scenario() -> None:
        async with dispatching(keeper, Batching(max_batch_size=1)) as (dispatcher, slow):
            gone = asyncio.create_task(ask(dispatcher, *map(str, range(50))))
            await computing(slow)
            gone.cancel()
            await asyncio.wait([gone])
            slow.go.set()
            await ask(dispatcher, "next")
            assert slow.batches == [["0"], ["next"]]

    asyncio.run(scenario())


def test_a_long_request_lets_others_in_between_its_parts(checkpoints: list[Path]) -> None:
    async def scenario() -> list[str]:
        order: list[str] = []

        def noting(texts: Sequence[str]) -> list[tuple[str, float]]:
            order.extend(texts)
            return [GOOD for _ in texts]

        with Counting(1) as compute:
            dispatchers = []
            for _ in range(2):
                loader = FakeLoader()
                loader.predict = noting
                keeper = keeper_of(Persistent(), loader, checkpoints[0])
                dispatchers.append(Dispatcher(keeper, compute, Batching(max_batch_size=1)))
            held = Event()
            compute.submit(held.wait, SECONDS)
            work = [
                asyncio.create_task(ask(each, *texts))
                for each, texts in zip(dispatchers, (["long"] * 9, ["short"]), strict=True)
            ]
            await started(work)
            await asyncio.to_thread(wait_for, lambda: compute.submitted == 3)  # beside what holds the thread
            held.set()
            await asyncio.gather(*work)
        return order

    order = asyncio.run(scenario())
    assert sorted(order) == ["long"] * 9 + ["short"]
    assert order.index("short") < 2


def test_who_waited_for_a_load_by_hand_is_cold_and_its_times_add_up(checkpoints: list[Path]) -> None:
    keeper = keeper_of(LruCached(), FakeLoader(), checkpoints[0])

    async def scenario() -> Answer:
        with ThreadPoolExecutor(2) as compute, gated(checkpoints[0]) as gate:
            by_hand = compute.submit(keeper.load, "a")
            await asyncio.to_thread(gate.wait_for_load)
            began = perf_counter()
            asked = asyncio.create_task(ask(Dispatcher(keeper, compute), "second"))
            await started([asked])
            gate.open()
            answer = await asked
            by_hand.result(SECONDS)
            assert 0 < answer.load + answer.queue <= perf_counter() - began
            return answer

    answer = asyncio.run(scenario())
    assert (answer.cold, dict(answer.phases)) == (True, {})  # it waited for a part of the load only
    assert answer.load > 0
    assert min(answer.queue, answer.inference) >= 0


def test_a_lane_is_served_again_when_the_system_had_no_thread_for_it(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with dispatching(keeper, Batching()) as (dispatcher, slow):
            slow.go.set()

            def fail(thread: Thread) -> None:
                raise RuntimeError("can't start new thread")

            with monkeypatch.context() as patch:
                patch.setattr(Thread, "start", fail)
                with pytest.raises(RuntimeError, match="can't start new thread"):
                    await ask(dispatcher, "first")
            assert (await ask(dispatcher, "second")).results == [GOOD]
            assert dispatcher.queues["a"].slots_in_use == 0

    asyncio.run(scenario())


def test_parts_are_of_like_length_and_within_the_limits() -> None:
    texts = ["word " * n for n in (3, 200, 5, 180, 4, 1, 220, 2)]
    limits = Batching(max_batch_size=4, max_batch_tokens=600)
    parts = list(split_into_parts([*map(len, texts)], limits))
    assert sorted(index for part in parts for index in part) == list(range(len(texts)))
    assert [len(texts[i]) for part in parts for i in part] == sorted(map(len, texts))
    for part in parts:
        assert len(part) <= limits.max_batch_size
        assert (
            len(part) == 1 or len(part) * max(estimate_tokens(len(texts[i])) for i in part) <= limits.max_batch_tokens
        )


@pytest.mark.process
def test_scores_do_not_depend_on_company(embedded_directory: Path) -> None:
    """In float32, padded beside longer texts or alone."""
    loader = MappedLoader()
    loader.prepare(embedded_directory)
    model = loader.load(embedded_directory)
    texts = [("good " * (i % 37) + "but the soup was cold. " * (i % 5)) or "fine" for i in range(60)]
    together: dict[int, Prediction] = {}
    for part in split_into_parts([*map(len, texts)], Batching()):
        together |= zip(part, model.predict([texts[i] for i in part]), strict=True)
    alone = [model.predict([text])[0] for text in texts]
    assert [together[i].label for i in range(len(texts))] == [prediction.label for prediction in alone]
    assert [together[i].score for i in range(len(texts))] == pytest.approx([p.score for p in alone], abs=1e-5)
    model.close()
