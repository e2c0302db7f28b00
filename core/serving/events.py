"""Answers, and the events of a server, for subscribers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from ..residency.events import Loaded, TimeoutChanged, Unloaded
from ..residency.versions import Version

Outcome = Literal["answered", "failed", "overloaded", "deadline_exceeded", "cancelled"]
"""How a request ended. `overloaded`: there was no free queue slot. `cancelled`: its client disconnected."""


@dataclass(frozen=True)
class Answer:
    """Results of a task, and the seconds that the request was queued, waited for a load, and was computed."""

    results: list[Any]
    cold: bool
    queue: float
    load: float
    inference: float
    phases: Mapping[str, float]
    """Seconds of the load by phase; empty if the request did not wait for the whole load."""
    batch: int = 1  # items that were computed together
    version: Version | None = None


class Configured(NamedTuple):
    """A strategy starts to decide, with a memory budget in bytes; None: no limit."""

    strategy: str
    budget: int | None


class Queued(NamedTuple):
    """A request has a queue slot."""

    strategy: str
    model_id: str


class Computed(NamedTuple):
    """A batch of `items` items was computed, by forwards that took `seconds` together."""

    strategy: str
    model_id: str
    items: int
    seconds: float


class Forwarded(NamedTuple):
    """A request was forwarded to an engine, whose answer took `seconds`."""

    strategy: str
    model_id: str
    seconds: float


class Ended(NamedTuple):
    """A request has ended. One that was `overloaded` had no queue slot."""

    strategy: str
    model_id: str
    outcome: Outcome
    seconds: float = 0.0  # since it arrived
    answer: Answer | None = None  # if it was answered


Event = Configured | Queued | Computed | Forwarded | Ended | Loaded | TimeoutChanged | Unloaded
