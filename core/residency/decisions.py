"""A strategy with all its members: where it leaves one out, or fails, the contract's default answers."""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Protocol

from ..contracts import LoadReason, Resident, UnloadReason

log = logging.getLogger("residency")


class Seen(Protocol):
    """A model in memory, which gives what a strategy sees of it."""

    def seen(self) -> Resident: ...


class Decisions:
    """Asks a strategy, and never fails where it does.

    What goes wrong is logged once for each member, and counted in `faults`. Members that it does not have are None
    here, so that whoever asks often can pass them over.
    """

    def __init__(self, strategy: Any, name: str) -> None:
        self.strategy = strategy
        self.name = name
        self.faults: Counter[str] = Counter()
        """Wrong answers and errors, by member."""
        self.reasons: dict[str, str] = {}
        """What the first of them was."""
        self._least = math.inf
        self.shared: bool = getattr(strategy, "shared", True)
        self.capacity: int | None = getattr(strategy, "capacity", None)
        self.budget: int | None = getattr(strategy, "memory_budget", None)
        self.pinned: Collection[str] = frozenset(getattr(strategy, "pinned", ()))
        self._keep = getattr(strategy, "keep", None)
        self._evict = getattr(strategy, "evict", None)
        self._requested = getattr(strategy, "requested", None)
        self._loaded = getattr(strategy, "loaded", None)
        self._unloaded = getattr(strategy, "unloaded", None)
        self._explain = getattr(strategy, "explain", None)
        self._state = getattr(strategy, "state", None)
        self._restore = getattr(strategy, "restore", None)
        self.keeps_all = self._keep is None
        self.hears_requests = self._requested is not None
        self.chooses = self._evict is not None

    @property
    def least_keep(self) -> float | None:
        """The fewest seconds after which a model was to be freed; None while each was to be freed at once or never."""
        return self._least if self._least < math.inf else None

    @property
    def is_limited(self) -> bool:
        return self.capacity is not None or self.budget is not None

    def start(self, models: Mapping[str, int]) -> list[str]:
        """What to load before the server is ready. Raises ValueError for what cannot be kept, and what the strategy
        raises otherwise.
        """
        start = getattr(self.strategy, "start", None)
        return list(start(models)) if start else []

    def state(self) -> str | None:
        """What it has learned, as JSON; None by default."""
        if self._state is not None:
            try:
                learned = self._state()
                return None if learned is None else json.dumps(learned, allow_nan=False)
            except Exception as error:
                self._wrong("state", error)
        return None

    def restore(self, state: str) -> None:
        """What `state` gave, of this object's predecessor; before `start`."""
        if self._restore is not None:
            try:
                self._restore(json.loads(state))
            except Exception as error:
                self._wrong("restore", error)

    def requested(self, model_id: str, now: float) -> None:
        if self._requested is not None:
            try:
                self._requested(model_id, now)
            except Exception as error:
                self._wrong("requested", error)

    def loaded(self, model: Seen, reason: LoadReason, now: float) -> None:
        if self._loaded is not None:
            try:
                self._loaded(model.seen(), reason, now)
            except Exception as error:
                self._wrong("loaded", error)

    def unloaded(self, model: Seen, reason: UnloadReason, now: float) -> None:
        if self._unloaded is not None:
            try:
                self._unloaded(model.seen(), reason, now)
            except Exception as error:
                self._wrong("unloaded", error)

    def keep(self, model: Seen, now: float) -> float:
        """Seconds until an idle model is freed; infinite by default."""
        if self._keep is not None:
            try:
                seconds = float(self._keep(model.seen(), now))
                if seconds >= 0:
                    if 0 < seconds < self._least:
                        self._least = seconds
                    return seconds
                self._wrong("keep", f"it answers {seconds}, which is no time")
            except Exception as error:
                self._wrong("keep", error)
        return math.inf

    def evict(self, candidates: Candidates, now: float) -> str:
        """Which of the candidates goes; the first by default. There is one at least."""
        if self._evict is not None:
            try:
                chosen = self._evict(candidates, now)
                if isinstance(chosen, str) and candidates.has(chosen):
                    return chosen
                self._wrong("evict", f"it names {chosen!r}, which is no candidate")
            except Exception as error:
                self._wrong("evict", error)
        return next(iter(candidates)).model_id

    def explain(self, model: Seen, now: float) -> str:
        if self._explain is not None:
            try:
                explained = self._explain(model.seen(), now)
                if isinstance(explained, str):
                    return explained
                self._wrong("explain", f"it answers {explained!r}, which is no text")
            except Exception as error:
                self._wrong("explain", error)
        return ""

    def _wrong(self, member: str, why: object) -> None:
        self.faults[member] += 1
        if self.faults[member] == 1:
            self.reasons[member] = f"{type(why).__name__}: {why}" if isinstance(why, Exception) else str(why)
            known = why if isinstance(why, Exception) else None
            log.error("Strategy '%s': %s: %s; the default answers", self.name, member, why, exc_info=known)


class Candidates(Collection[Resident]):
    """Models of which one has to go, the one first whose latest use is the longest ago: a live view, by id."""

    def __init__(self, models: Mapping[str, Seen]) -> None:
        self._models = models

    def __len__(self) -> int:
        return len(self._models)

    def __iter__(self) -> Iterator[Resident]:
        for copy in self._models.values():
            yield copy.seen()

    def __contains__(self, model: object) -> bool:
        return isinstance(model, Resident) and self.has(model.model_id)

    def has(self, model_id: str) -> bool:
        return model_id in self._models
