"""A strategy, with the contract's default for each member that it leaves out or that fails."""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Protocol

from ..contracts import LoadReason, Resident, UnloadReason

log = logging.getLogger("residency")


class SupportsResident(Protocol):
    """A model in memory."""

    def to_resident(self) -> Resident:
        """The model as a strategy sees it."""


class Decisions:
    """Calls a strategy. Its methods have the names of the strategy's members, and never raise, except `start`.

    Where a member raises an error or gives a wrong answer, the default is returned. That is counted in `faults`, and
    logged the first time for each member.
    """

    def __init__(self, strategy: Any, name: str) -> None:
        self.strategy = strategy
        self.name = name
        self.faults: Counter[str] = Counter()
        """Errors and wrong answers, counted by member."""
        self.reasons: dict[str, str] = {}
        """The first fault, by member."""
        self.timeouts: dict[str, float] = {}
        """What `keep` last answered, in seconds by model id."""
        self._least_keep = math.inf
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
        self.has_keep = self._keep is not None
        self.observes_requests = self._requested is not None
        self.has_evict = self._evict is not None

    @property
    def least_keep(self) -> float | None:
        """The shortest time that `keep` has answered, in seconds, except 0; None if it never answered a finite one."""
        return self._least_keep if self._least_keep < math.inf else None

    @property
    def is_limited(self) -> bool:
        return self.capacity is not None or self.budget is not None

    def start(self, models: Mapping[str, int]) -> list[str]:
        """The ids of the models to load before the server is ready.

        Raises what the strategy raises, such as ValueError for options that cannot be kept.
        """
        start = getattr(self.strategy, "start", None)
        return list(start(models)) if start else []

    def state(self) -> str | None:
        """What the strategy has learned, as JSON; None by default."""
        if self._state is not None:
            try:
                learned = self._state()
                return None if learned is None else json.dumps(learned, allow_nan=False)
            except Exception as error:
                self._record_fault("state", error)
        return None

    def restore(self, state: str) -> None:
        """Give the strategy what `state` returned in an earlier process. Called before `start`."""
        if self._restore is not None:
            try:
                self._restore(json.loads(state))
            except Exception as error:
                self._record_fault("restore", error)

    def requested(self, model_id: str, now: float) -> None:
        if self._requested is not None:
            try:
                self._requested(model_id, now)
            except Exception as error:
                self._record_fault("requested", error)

    def loaded(self, model: SupportsResident, reason: LoadReason, now: float) -> None:
        if self._loaded is not None:
            try:
                self._loaded(model.to_resident(), reason, now)
            except Exception as error:
                self._record_fault("loaded", error)

    def unloaded(self, model: SupportsResident, reason: UnloadReason, now: float) -> None:
        if self._unloaded is not None:
            try:
                self._unloaded(model.to_resident(), reason, now)
            except Exception as error:
                self._record_fault("unloaded", error)

    def keep(self, model: SupportsResident, now: float) -> float:
        """Seconds until an idle model is freed; infinite by default."""
        if self._keep is not None:
            try:
                resident = model.to_resident()
                seconds = float(self._keep(resident, now))
                if seconds >= 0:
                    self.timeouts[resident.model_id] = seconds
                    if 0 < seconds < self._least_keep:
                        self._least_keep = seconds
                    return seconds
                self._record_fault("keep", f"it answered {seconds}, which is not a time in seconds")
            except Exception as error:
                self._record_fault("keep", error)
        return math.inf

    def evict(self, candidates: Candidates, now: float) -> str:
        """The id of the candidate to evict; the first by default. There is at least one candidate."""
        if self._evict is not None:
            try:
                chosen = self._evict(candidates, now)
                if isinstance(chosen, str) and candidates.has_model(chosen):
                    return chosen
                self._record_fault("evict", f"it named {chosen!r}, which is not a candidate")
            except Exception as error:
                self._record_fault("evict", error)
        return next(iter(candidates)).model_id

    def explain(self, model: SupportsResident, now: float) -> str:
        """The strategy's sentence about the model; empty by default."""
        if self._explain is not None:
            try:
                explained = self._explain(model.to_resident(), now)
                if isinstance(explained, str):
                    return explained
                self._record_fault("explain", f"it answered {explained!r}, which is not a text")
            except Exception as error:
                self._record_fault("explain", error)
        return ""

    def _record_fault(self, member: str, why: object) -> None:
        self.faults[member] += 1
        if self.faults[member] == 1:
            self.reasons[member] = f"{type(why).__name__}: {why}" if isinstance(why, Exception) else str(why)
            exception = why if isinstance(why, Exception) else None
            log.error("Strategy '%s': %s: %s. The default is used instead.", self.name, member, why, exc_info=exception)


class Candidates(Collection[Resident]):
    """Models of which one has to be evicted, the least recently used first: a live view of a mapping by id."""

    def __init__(self, models: Mapping[str, SupportsResident]) -> None:
        self._models = models

    def __len__(self) -> int:
        return len(self._models)

    def __iter__(self) -> Iterator[Resident]:
        for copy in self._models.values():
            yield copy.to_resident()

    def __contains__(self, model: object) -> bool:
        return isinstance(model, Resident) and self.has_model(model.model_id)

    def has_model(self, model_id: str) -> bool:
        return model_id in self._models
