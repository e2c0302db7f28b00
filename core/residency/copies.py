"""A copy of a model in memory, the leases of those who use it, and what a pool of them asks for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum, auto
from typing import Any, Protocol

from ..contracts import LoadReason, Resident, UnloadReason


class State(Enum):
    WAITING = auto()  # for room
    LOADING = auto()
    RESIDENT = auto()
    GONE = auto()  # its memory is still counted until it is closed


class Copy:
    """A model in memory, or on its way there."""

    state = State.WAITING
    leases = 0
    later: Sequence[Lease] = ()  # that wait until it is gone, because it is `leaving`
    leaving: UnloadReason | None = None  # its leases go on, but nobody joins them
    due = math.inf  # when it expires, if nobody uses it until then
    armed = math.inf  # the moment under which it stands among the expiries
    loaded_at = last_used = load_seconds = load_cpu_seconds = 0.0
    load_waiters = uses = 0
    resident: Resident | None = None
    model: Any = None  # whoever loads it keeps here what that gave

    def __init__(self, model_id: str, nbytes: int, reason: LoadReason, now: float) -> None:
        self.model_id = model_id
        self.nbytes = nbytes  # as they are counted
        self.reason = reason  # of its load
        self.asked_at = now
        self.waiting: list[Lease] = []  # for its load

    def seen(self) -> Resident:
        """As a strategy sees it; made once for each time in which nobody uses it."""
        if self.resident is None:
            self.resident = tuple.__new__(  # in half the time of Resident(…), and a plan makes millions
                Resident,
                (
                    self.model_id,
                    self.nbytes,
                    self.loaded_at,
                    self.load_seconds,
                    self.load_cpu_seconds,
                    self.load_waiters,
                    self.last_used,
                    self.uses,
                ),
            )
        return self.resident


class Lease:
    """The right to use a model, from when it is granted until it is released: the model stays in memory meanwhile."""

    __slots__ = ("copy", "error", "model_id", "owner", "reason")

    def __init__(self, model_id: str, reason: LoadReason = "request", owner: Any = None) -> None:
        """`owner` is whoever waits for it, as the outlet knows them."""
        self.model_id = model_id
        self.reason = reason
        self.owner = owner
        self.copy: Copy | None = None  # once it is granted
        self.error: BaseException | None = None  # once it is refused


class Outlet(Protocol):
    """What a pool asks of whoever wraps it. None of these may call the pool back before the event has returned."""

    def begin_load(self, copy: Copy) -> None:
        """Load it; then tell `loaded` or `failed`."""

    def begin_close(self, copy: Copy, reason: UnloadReason) -> None:
        """Close it; then tell `closed`."""

    def granted(self, lease: Lease) -> None: ...

    def refused(self, lease: Lease) -> None: ...

    def wake_at(self, moment: float) -> None:
        """Call `wake` then; an earlier moment replaces a later one."""
