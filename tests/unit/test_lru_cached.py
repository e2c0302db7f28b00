from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from pydantic import ByteSize

from core.errors import LoadFailed
from core.residency.keeper import Keeper
from strategies.lru_cached import LruCached
from tests.helpers.fakes import SIZE, FakeLoader, FakeModel
from tests.helpers.support import SECONDS, checkpoint_in, gated, ids, in_threads, keeper_of, wait_for


def cache_of(directories: list[Path], **options: Any) -> tuple[Keeper, FakeLoader]:
    loader = FakeLoader()
    return keeper_of(LruCached(**options), loader, *directories), loader


def use(cache: Keeper, *model_ids: str) -> None:
    for model_id in model_ids:
        with cache.lease(model_id) as lent:
            assert lent.model.predict(["good"]) == [("POSITIVE", 0.75)]
            lent.answered = 1


def answers(cache: Keeper, model_id: str) -> bool:
    with suppress(LoadFailed):
        use(cache, model_id)
        return True
    return False


def test_evicts_the_least_recently_used(checkpoints: list[Path]) -> None:
    cache, loader = cache_of(checkpoints, capacity=2)
    use(cache, "a", "b", "a", "c")
    assert ids(cache) == ["a", "c"]
    assert (loader.loads, loader.most) == (3, 2 * SIZE)


def test_keeps_two_models_without_options(checkpoints: list[Path]) -> None:
    cache, loader = cache_of(checkpoints)
    use(cache, "a", "b", "c")
    assert (ids(cache), loader.most) == (["b", "c"], 2 * SIZE)


def test_keeps_a_budget_without_a_capacity(checkpoints: list[Path]) -> None:
    cache, loader = cache_of(checkpoints, memory_budget=ByteSize(3 * SIZE - 1))
    use(cache, "a", "b", "c")
    assert (ids(cache), loader.most) == (["b", "c"], 2 * SIZE)


def test_loads_once_for_all_who_ask_at_that_moment(checkpoints: list[Path]) -> None:
    cache, loader = cache_of(checkpoints, capacity=2)
    with gated(checkpoints[0]) as gate, ThreadPoolExecutor(32) as pool:
        users = [pool.submit(use, cache, "a") for _ in range(32)]
        wait_for(lambda: cache.waiting("a") == 32)
        gate.open()
        for user in users:
            user.result(SECONDS)
    assert loader.loads == 1


def test_a_hit_does_not_wait_for_another_models_load(checkpoints: list[Path]) -> None:
    cache, _ = cache_of(checkpoints, capacity=2)
    use(cache, "a")
    with gated(checkpoints[1]) as gate, ThreadPoolExecutor(1) as pool:
        slow = pool.submit(use, cache, "b")
        gate.wait_for_load()
        use(cache, "a")
        assert not slow.done()
        gate.open()
        slow.result(SECONDS)


def test_never_evicts_a_model_in_use(checkpoints: list[Path]) -> None:
    cache, loader = cache_of(checkpoints, capacity=1)
    with ThreadPoolExecutor(1) as pool:
        with cache.lease("a") as lent:
            other = pool.submit(use, cache, "b")
            wait_for(lambda: cache.waiting("b") == 1)
            assert lent.model.predict(["good"]) == [("POSITIVE", 0.75)]
            assert loader.loads == 1  # b waits for the place
        other.result(SECONDS)
    assert (ids(cache), loader.most) == (["b"], SIZE)


@pytest.mark.process
def test_never_over_budget_whoever_asks(tmp_path: Path) -> None:
    """32 threads × 200 uses of 8 models, with room for 3: no deadlock, and no model twice in memory."""
    cache, loader = cache_of([checkpoint_in(tmp_path / name) for name in "abcdefgh"], memory_budget=ByteSize(3 * SIZE))
    in_threads(32, lambda i: use(cache, *random.Random(i).choices("abcdefgh", k=200)))
    assert (loader.most, loader.most_copies) == (3 * SIZE, 1)
    cache.close()
    assert loader.held == 0


@pytest.mark.process
def test_those_who_wait_for_a_failing_load_get_its_error(checkpoints: list[Path]) -> None:
    (checkpoints[0] / "broken").touch()
    cache, loader = cache_of(checkpoints, capacity=1)
    with gated(checkpoints[0]) as gate, ThreadPoolExecutor(8) as pool:
        users = [pool.submit(use, cache, "a") for _ in range(8)]
        wait_for(lambda: cache.waiting("a") == 8)
        gate.open()
        errors = [user.exception(SECONDS) for user in users]
    assert all(isinstance(error, LoadFailed) for error in errors)
    assert loader.loads == 1
    (checkpoints[0] / "broken").unlink()
    use(cache, "b")  # the failed load's place is free again
    assert loader.loads == 2
    wait_for(lambda: answers(cache, "a"))  # and once the failure is forgotten, it is tried again


def test_a_model_in_steady_use_does_not_keep_others_out(checkpoints: list[Path]) -> None:
    cache, _ = cache_of(checkpoints, capacity=1)
    served = Event()

    def keep_using(_: int) -> None:
        while not served.is_set():
            use(cache, "a")

    with ThreadPoolExecutor(4) as pool:
        hot = [pool.submit(keep_using, i) for i in range(4)]
        wait_for(lambda: "a" in ids(cache))
        try:
            pool_of_one = ThreadPoolExecutor(1)
            pool_of_one.submit(use, cache, "b").result(SECONDS)
        finally:
            served.set()
            pool_of_one.shutdown()
        for user in hot:
            user.result(SECONDS)


def test_those_who_wait_for_one_place_take_turns(checkpoints: list[Path]) -> None:
    cache, loader = cache_of(checkpoints, capacity=1)
    in_threads(6, lambda i: use(cache, *["abc"[i % 3]] * 20))
    assert loader.most == SIZE


def test_a_lease_outlives_close_and_nothing_is_lent_after(checkpoints: list[Path]) -> None:
    cache, loader = cache_of(checkpoints, capacity=2)
    use(cache, "b")
    with cache.lease("a") as lent:
        cache.close()
        assert lent.model.predict(["good"]) == [("POSITIVE", 0.75)]
        assert loader.held == SIZE
    assert loader.held == 0
    with pytest.raises(RuntimeError, match="closed"):
        use(cache, "a")


def test_a_load_that_ends_after_close_is_freed_by_its_user(checkpoints: list[Path]) -> None:
    cache, loader = cache_of(checkpoints, capacity=1)
    with gated(checkpoints[0]) as gate, ThreadPoolExecutor(2) as pool:
        loading = pool.submit(use, cache, "a")
        gate.wait_for_load()
        waiting = pool.submit(use, cache, "b")
        wait_for(lambda: cache.waiting("b") == 1)
        cache.close()
        assert isinstance(waiting.exception(SECONDS), RuntimeError)  # at once, not when its patience ends
        gate.open()
        loading.result(SECONDS)
    assert loader.held == 0


def test_a_wait_in_vain_is_no_failed_load(checkpoints: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.residency.keeper.ACQUIRE_TIMEOUT", 0.05)
    cache, _ = cache_of(checkpoints, capacity=1)
    with cache.lease("a"), pytest.raises(TimeoutError, match="for model 'b': no memory is free"):
        use(cache, "b")
    use(cache, "b")


def test_a_model_that_cannot_be_closed_fails_nobody_else(
    checkpoints: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: FakeModel) -> None:
        raise OSError("will not close")

    cache, _ = cache_of(checkpoints, capacity=1)
    use(cache, "a")
    monkeypatch.setattr(FakeModel, "close", fail)
    use(cache, "b", "c")
    cache.close()


def test_refuses_a_model_larger_than_the_budget(checkpoints: list[Path]) -> None:
    with pytest.raises(
        ValueError, match="model 'a' takes 1000B, more than the memory_budget of 999B; raise the budget"
    ):
        cache_of(checkpoints, memory_budget=ByteSize(SIZE - 1))
