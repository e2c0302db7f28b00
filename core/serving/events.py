"""What happens in an engine, for whoever subscribes."""

from __future__ import annotations

from typing import Literal, NamedTuple

from ..residency.events import Loaded, Unloaded
from .answer import Answer

Outcome = Literal["answered", "failed", "overloaded", "late", "gone"]


class Configured(NamedTuple):
    """A strategy decides from now on, within so many bytes; None: any number."""

    strategy: str
    budget: int | None


class Queued(NamedTuple):
    """A request has got a place in the queue of its model."""

    strategy: str
    model_id: str


class Computed(NamedTuple):
    """So many texts were computed together."""

    strategy: str
    texts: int


class Ended(NamedTuple):
    """A request has ended; one that was `overloaded` had no place."""

    strategy: str
    model_id: str
    outcome: Outcome
    seconds: float = 0.0  # since it arrived
    answer: Answer | None = None  # of one that was answered


Event = Configured | Queued | Computed | Ended | Loaded | Unloaded
