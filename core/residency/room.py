"""How many models and bytes are in memory, and how many there may be."""

from __future__ import annotations

import math

from ..contracts import UnloadReason
from .copies import Copy
from .decisions import Decisions


class Room:
    """What is `held` is in memory, on its way there, or not closed yet; what `stays` is without those that go, and with
    those that room was found for.
    """

    def __init__(self, decisions: Decisions) -> None:
        self._held_count = self._held_bytes = 0
        self.staying = 0  # models
        self._staying_bytes = 0
        self.limit(decisions)

    def limit(self, decisions: Decisions) -> None:
        """Go by the limits of these decisions."""
        self._capacity = math.inf if decisions.capacity is None else decisions.capacity
        self.budget = math.inf if decisions.budget is None else decisions.budget

    def exceeded(self) -> UnloadReason | None:
        """Which limit those that stay break."""
        return self._broken(self.staying, self._staying_bytes)

    def lacking_for(self, copy: Copy) -> UnloadReason | None:
        """Which limit they would break together with the copy. One that is too large fits alone."""
        return self._broken(self.staying + 1, self._staying_bytes + copy.nbytes) if self.staying else None

    def has_come_for(self, copy: Copy) -> bool:
        """Whether those that go have made room for the copy."""
        return not self._held_count or not self._broken(self._held_count + 1, self._held_bytes + copy.nbytes)

    def has_some_for(self, copy: Copy) -> bool:
        """Whether nobody has to go for the copy."""
        return self._held_count == self.staying and not (self.lacking_for(copy) or self.exceeded())

    def promise(self, copy: Copy) -> None:
        """It will stay."""
        self.staying += 1
        self._staying_bytes += copy.nbytes

    def withdraw(self, copy: Copy) -> None:
        """It goes."""
        self.staying -= 1
        self._staying_bytes -= copy.nbytes

    def take(self, copy: Copy) -> None:
        """It is on its way into memory."""
        self._held_count += 1
        self._held_bytes += copy.nbytes

    def give_back(self, copy: Copy) -> None:
        """It is in memory no more."""
        self._held_count -= 1
        self._held_bytes -= copy.nbytes

    def measure(self, copy: Copy, nbytes: int) -> None:
        """Count the copy, which is held, with the size that it was found to have."""
        more = nbytes - copy.nbytes
        copy.nbytes = nbytes
        copy.resident = None
        self._held_bytes += more
        if copy.leaving is None:
            self._staying_bytes += more

    def _broken(self, count: int, nbytes: int) -> UnloadReason | None:
        if count > self._capacity:
            return "capacity"
        return "budget" if nbytes > self.budget else None
