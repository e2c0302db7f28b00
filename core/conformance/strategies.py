"""Checks of a strategy, with fake models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from threading import Lock, Semaphore
from typing import ClassVar

from ..contracts import Prediction
from ..plugins import Registered
from ..residency.decisions import Decisions
from ..residency.host import Host
from ..residency.keeper import Keeper
from ..residency.versions import Versions
from .checks import Check, require
from .decisions import check_decisions

MODELS = ("one", "two", "three")
NBYTES = 1 << 20
THREADS, USES = 12, 25
RIVALS_SECONDS = 0.2
TEXTS = ("It was good.", "It was bad.")


class _Loader:
    """A loader that counts how many models are in memory, now and at most."""

    name: ClassVar = "counting"

    def __init__(self) -> None:
        self._lock = Lock()
        self.loads = self.held = self.peak = 0

    def size(self, checkpoint: Path) -> int:
        return NBYTES

    def load(self, checkpoint: Path) -> _Model:
        with self._lock:
            self.loads += 1
        self.count(1)
        return _Model(self)

    def count(self, change: int) -> None:
        with self._lock:
            self.held += change
            self.peak = max(self.peak, self.held)


class _Model:
    nbytes = NBYTES

    def __init__(self, loader: _Loader) -> None:
        self._loader = loader
        self._is_closed = False

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        if self._is_closed:
            raise RuntimeError("a model was closed while it was in use")
        return [Prediction("GOOD" if "good" in text else "BAD", 1 / (1 + len(text))) for text in texts]

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._loader.count(-1)


@contextmanager
def _run_strategy(registered: Registered, state: str | None = None) -> Iterator[tuple[Keeper, _Loader]]:
    """Run the strategy with its default options and, if any, the state that it saved."""
    loader = _Loader()
    versions = Versions(dict.fromkeys(MODELS, "embedded"))
    versions.find_all()
    decisions = Decisions(registered.cls(**registered.validate({})), registered.name)
    host = Host(registered.name, loader, versions, Semaphore(4))
    keeper = Keeper(decisions, host)
    keeper.start(state)
    try:
        yield keeper, loader
    finally:
        keeper.close()


def _use(keeper: Keeper, model_id: str) -> None:
    keeper.record_request(model_id)
    with keeper.lease(model_id) as leased:
        labels = [label for label, _ in leased.model.predict(TEXTS)]
        leased.answered = 1
    require(labels == ["GOOD", "BAD"], f"model '{model_id}' answered with {labels}")


def _check_answers(registered: Registered) -> None:
    with _run_strategy(registered) as (keeper, _):
        for model_id in (*MODELS, *reversed(MODELS), *MODELS):
            _use(keeper, model_id)


def _check_threads(registered: Registered) -> None:
    with _run_strategy(registered) as (keeper, loader), ThreadPoolExecutor(THREADS) as pool:
        work = [pool.submit(_use, keeper, MODELS[(i * 7 + i // 5) % len(MODELS)]) for i in range(THREADS * USES)]
        for each in work:
            each.result()
        copies = Counter(copy.model_id for copy in keeper.residents())
        require(all(count == 1 for count in copies.values()), f"models are in memory more than once: {dict(copies)}")
        _check_limits(keeper, loader)


def _check_limits(keeper: Keeper, loader: _Loader) -> None:
    decisions = keeper.decisions
    fitting = None if decisions.budget is None else decisions.budget // NBYTES
    limit = min((each for each in (decisions.capacity, fitting) if each is not None), default=None)
    is_kept = limit is None or loader.peak <= limit
    require(is_kept, f"{loader.peak} models were in memory, where {limit} are allowed")


def _check_leases(registered: Registered) -> None:
    with _run_strategy(registered) as (keeper, _), ThreadPoolExecutor(len(MODELS)) as pool:
        with keeper.lease(MODELS[0]) as leased:
            others = [pool.submit(_use, keeper, model_id) for model_id in MODELS[1:]]
            wait(others, RIVALS_SECONDS)  # those that do not fit wait until this lease ends
            leased.model.predict(TEXTS)
            leased.answered = 1
        for other in others:
            other.result()


def _check_memory(registered: Registered) -> None:
    with _run_strategy(registered) as (keeper, loader):
        for model_id in MODELS:
            _use(keeper, model_id)
    require(loader.held == 0, f"{loader.held} models stayed in memory after the end")


def _check_members(registered: Registered) -> None:
    with _run_strategy(registered) as (keeper, _):
        for model_id in (*MODELS, *MODELS, MODELS[0]):
            _use(keeper, model_id)
            keeper.next_out()
            for each in MODELS:
                keeper.status(each)
        for model_id in MODELS:
            keeper.unload(model_id)
        learned = keeper.state()
    with _run_strategy(registered, learned) as (restarted, _):
        _use(restarted, MODELS[0])
    reasons = restarted.decisions.reasons | keeper.decisions.reasons
    faults = [f"{member} fails: {why}" for member, why in reasons.items()]
    require(not faults, "; ".join(faults))


def strategy_checks(registered: Registered) -> list[Check]:
    """The checks of a strategy."""
    parts = {
        "it answers": _check_answers,
        "it answers many threads, within its limits": _check_threads,
        "it leaves models in use alone": _check_leases,
        "it gives all memory back": _check_memory,
        "its members answer as the contract says": _check_members,
        "it copes with hard traffic": check_decisions,
    }
    return [Check(registered, name, run) for name, run in parts.items()]
