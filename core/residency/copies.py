"""A copy of a model in memory, the leases on it, and the interface to whatever wraps a pool of copies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum, auto
from typing import Any, Protocol

from ..contracts import LoadReason, Resident, UnloadReason


class State(Enum):
    WAITING = auto()  # for capacity
    LOADING = auto()
    RESIDENT = auto()
    CLOSING = auto()  # not in the pool any more; its memory is counted until it is closed


# In Python 3.11 each `State.RESIDENT` is a call, which is slow where a plan makes millions.
WAITING, LOADING, RESIDENT, CLOSING = State.WAITING, State.LOADING, State.RESIDENT, State.CLOSING


class Copy:
    """A model in memory, or one that is about to be loaded."""

    state = State.WAITING
    leases = 0
    blocked: Sequence[Lease] = ()  # requested while this copy was draining; granted on its successor
    draining: UnloadReason | None = None  # its leases continue, but no new lease is granted on it
    due = math.inf  # when it expires if it stays idle
    armed = math.inf  # the time of its entry in `Expiries`
    loaded_at = last_used = load_seconds = load_cpu_seconds = 0.0
    load_waiters = uses = 0
    resident: Resident | None = None  # what `to_resident` has made
    model: Any = None  # set by whatever loads the copy

    def __init__(self, model_id: str, nbytes: int, reason: LoadReason, now: float) -> None:
        self.model_id = model_id
        self.nbytes = nbytes  # as they are counted against the limits
        self.reason = reason  # of its load
        self.asked_at = now
        self.waiting: list[Lease] = []  # for its load

    def to_resident(self) -> Resident:
        """The copy as a strategy sees it; made once for each time that it is idle."""
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
    """The right to use a model. The model stays in memory from when the lease is granted until it is released."""

    __slots__ = ("copy", "error", "model_id", "owner", "reason")

    def __init__(self, model_id: str, reason: LoadReason = "request", owner: Any = None) -> None:
        """`owner` is for the outlet, to find what waits for the lease."""
        self.model_id = model_id
        self.reason = reason
        self.owner = owner
        self.copy: Copy | None = None  # once the lease is granted
        self.error: BaseException | None = None  # once it is refused


class Outlet(Protocol):
    """What a pool asks of whatever wraps it. None of these may call the pool before the pool's method has returned."""

    def begin_load(self, copy: Copy) -> None:
        """Load the copy, then call `Pool.mark_loaded` or `Pool.mark_failed`."""

    def begin_close(self, copy: Copy, reason: UnloadReason) -> None:
        """Close the copy, then call `Pool.mark_closed`."""

    def grant(self, lease: Lease) -> None:
        """Wake the thread that waits for the lease, which has its copy."""

    def refuse(self, lease: Lease) -> None:
        """Wake the thread that waits for the lease, which has an error."""

    def wake_at(self, moment: float) -> None:
        """Call `Pool.wake` at that moment. An earlier moment replaces a later one."""
