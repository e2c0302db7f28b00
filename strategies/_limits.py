"""What a pool may hold."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import TYPE_CHECKING

from pydantic import ByteSize

if TYPE_CHECKING:
    from core.contracts import Load, Reason

log = logging.getLogger("residency")


class Limits:
    """At most `capacity` models and `budget` bytes; None is no limit. What is `pinned` is never evicted."""

    def __init__(self, capacity: int | None, budget: ByteSize | None, pinned: Collection[str]) -> None:
        self.capacity = capacity
        self.budget = budget
        self.pinned = frozenset(pinned)

    @property
    def exist(self) -> bool:
        return self.capacity is not None or self.budget is not None

    def exceeded(self, count: int, total: int) -> Reason | None:
        """Which limit `count` models of `total` bytes break."""
        if self.capacity is not None and count > self.capacity:
            return "capacity"
        if self.budget is not None and total > self.budget:
            return "budget"
        return None

    def why(self, model_id: str, users: int, next_out: str | None) -> str:
        """Why the model stays, or is the next to go."""
        if model_id in self.pinned:
            return "it is pinned"
        if users > 0:
            return "it is in use"
        if model_id == next_out:
            return "of those that nobody uses, it was used the longest ago"
        return f"'{next_out}' was used longer ago" if next_out else ""

    def check(self, load: Load) -> None:
        """Raise ValueError for a model that can never fit, or for a pinned one that there is not."""
        known = load.model_ids
        if unknown := sorted(self.pinned - set(known)):
            raise ValueError(f"there is no model '{unknown[0]}' to pin; models: {', '.join(known)}")
        if self.budget is None:
            return
        kept = sum(load.size(model_id) for model_id in self.pinned)
        for model_id in known:
            try:
                size = load.size(model_id)
            except Exception as error:  # one broken model must not keep the others from being served
                log.warning("%s", error)
                continue
            beside = 0 if model_id in self.pinned else size
            if kept + beside > self.budget:
                pins = f" beside {ByteSize(kept).human_readable()} that are pinned" if kept else ""
                raise ValueError(
                    f"model '{model_id}' takes {ByteSize(size).human_readable()}{pins}, more than the memory_budget"
                    f" of {self.budget.human_readable()}; raise the budget or leave the model out"
                )
