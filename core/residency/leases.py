"""Leases as threads hold them, and what is shown of a model under them."""

from __future__ import annotations

from typing import NamedTuple

from ..contracts import LoadReason
from .copies import Copy, Lease
from .loaded import LoadedModel


class ThreadLease(Lease):
    """A lease that a thread waits for. The first thread that waits for a model also loads it."""

    __slots__ = ("must_load",)

    def __init__(self, model_id: str, reason: LoadReason) -> None:
        super().__init__(model_id, reason)
        self.must_load: Copy | None = None

    def is_decided(self) -> bool:
        """Whether the thread need not wait: it has the lease, or an error, or must load the model."""
        return self.copy is not None or self.error is not None or self.must_load is not None


class LeasedModel:
    """A model under a lease, and what has happened under it: `answered` requests, or a crash."""

    def __init__(self, lease: Lease) -> None:
        """`lease` has been granted."""
        assert lease.copy is not None
        copy = lease.copy
        self.lease = lease
        self.copy = copy
        self.model: LoadedModel = copy.model
        self.asked_at = copy.asked_at  # when this load was first asked for
        self.loaded_at = copy.loaded_at
        self.answered = 0
        self.has_crashed = False


class CopyStatus(NamedTuple):
    """What `/residency` shows of a model in memory. Times are on the host's clock."""

    leases: int
    last_used: float
    expires: float | None
    explanation: str  # the strategy's
