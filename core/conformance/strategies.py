"""The contract of a strategy, on models that cost nothing."""

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
from .checks import Check, holds

MODELS = ("one", "two", "three")
NBYTES = 1 << 20
THREADS, USES = 12, 25
RIVALS_SECONDS = 0.2
TEXTS = ("It was good.", "It was bad.")


class _Loader:
    """Counts what its models hold, and how many copies of one there are."""

    name: ClassVar = "counting"

    def __init__(self) -> None:
        self._lock = Lock()
        self.loads = self.held = self.most = 0

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
            self.most = max(self.most, self.held)


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
def _started(registered: Registered, state: str | None = None) -> Iterator[tuple[Keeper, _Loader]]:
    """The strategy at work, with its default options and what it had learned."""
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
    keeper.requested(model_id)
    with keeper.lease(model_id) as lent:
        labels = [label for label, _ in lent.model.predict(TEXTS)]
        lent.answered = 1
    holds(labels == ["GOOD", "BAD"], f"model '{model_id}' was answered by {labels}")


def _answers(registered: Registered) -> None:
    with _started(registered) as (keeper, _):
        for model_id in (*MODELS, *reversed(MODELS), *MODELS):
            _use(keeper, model_id)


def _answers_threads(registered: Registered) -> None:
    with _started(registered) as (keeper, loader), ThreadPoolExecutor(THREADS) as pool:
        work = [pool.submit(_use, keeper, MODELS[(i * 7 + i // 5) % len(MODELS)]) for i in range(THREADS * USES)]
        for each in work:
            each.result()
        copies = Counter(copy.model_id for copy in keeper.residents())
        holds(all(count == 1 for count in copies.values()), f"models are in memory more than once: {dict(copies)}")
        _within_limits(keeper, loader)


def _within_limits(keeper: Keeper, loader: _Loader) -> None:
    decisions = keeper.decisions
    most = [each for each in (decisions.capacity, decisions.budget and decisions.budget // NBYTES) if each is not None]
    holds(not most or loader.most <= min(most), f"{loader.most} models were in memory, where {most} are allowed")


def _leaves_alone(registered: Registered) -> None:
    with _started(registered) as (keeper, _), ThreadPoolExecutor(len(MODELS)) as pool:
        with keeper.lease(MODELS[0]) as lent:
            others = [pool.submit(_use, keeper, model_id) for model_id in MODELS[1:]]
            wait(others, RIVALS_SECONDS)  # who finds no room waits until this lease ends
            lent.model.predict(TEXTS)
            lent.answered = 1
        for other in others:
            other.result()


def _gives_back(registered: Registered) -> None:
    with _started(registered) as (keeper, loader):
        for model_id in MODELS:
            _use(keeper, model_id)
    holds(loader.held == 0, f"{loader.held} models stayed in memory after the end")


def _members_answer(registered: Registered) -> None:
    with _started(registered) as (keeper, _):
        for model_id in (*MODELS, *MODELS, MODELS[0]):
            _use(keeper, model_id)
            keeper.next_out()
            for each in MODELS:
                keeper.look(each)
        for model_id in MODELS:
            keeper.unload(model_id)
        learned = keeper.state()
    with _started(registered, learned) as (restarted, _):
        _use(restarted, MODELS[0])
    reasons = restarted.decisions.reasons | keeper.decisions.reasons
    told = [f"{member} fails: {why}" for member, why in reasons.items()]
    holds(not told, "; ".join(told))


def strategy_checks(registered: Registered) -> list[Check]:
    """Of one strategy."""
    parts = {
        "it answers": _answers,
        "it answers many threads, within its limits": _answers_threads,
        "it leaves models in use alone": _leaves_alone,
        "it gives all memory back": _gives_back,
        "its members answer as the contract says": _members_answer,
    }
    return [Check(registered, name, run) for name, run in parts.items()]
