"""What is in a simulated server's memory, who goes when there is no room, and who waits for it: as strategies/_pool.py
has it.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Sequence

from .profile import ModelProfile
from .setting import Setting

BYTE = 2.0**-20  # MiB, for sums of them
ABSENT, LOADING, RESIDENT = range(3)


class Memory:
    """Models by index. `busy` says which lanes are at work: their models are never evicted."""

    def __init__(self, setting: Setting, models: Sequence[ModelProfile], busy: Sequence[bool]) -> None:
        self._models, self._busy = models, busy
        self._capacity = math.inf if setting.capacity is None else setting.capacity
        self._budget = math.inf if setting.budget_mib is None else setting.budget_mib + BYTE
        self.limited = min(self._capacity, self._budget) < math.inf
        self.state = [ABSENT] * len(models)
        self._since = [0.0] * len(models)  # it is charged
        self._used: OrderedDict[int, None] = OrderedDict()  # least recently used first, those that wait included
        self._count, self._weights, self._held = 0, 0.0, 0.0  # now; MiB of weights, and charged
        self._waiting: deque[int] = deque()  # lanes, for room
        self._leaving: dict[int, int] = {}  # by who waits: a model that is lent, and goes when it is given back
        self.peak = 0.0
        self.mib_seconds = 0.0

    def touch(self, model: int) -> None:
        """Somebody acquires it."""
        self._used[model] = None
        self._used.move_to_end(model)

    def reserve(self, model: int, now: float) -> None:
        """It is charged from now on, whatever the limits are."""
        self.state[model], self._since[model] = LOADING, now
        self._count += 1
        self._weights += self._models[model].weights_mib
        self._held += self._models[model].mib
        self.peak = max(self.peak, self._held)

    def free(self, model: int, now: float) -> None:
        """It is gone."""
        self.state[model] = ABSENT
        self._used.pop(model, None)
        self._count -= 1
        self._weights -= self._models[model].weights_mib
        self._held -= self._models[model].mib
        self.mib_seconds += self._models[model].mib * (now - self._since[model])
        self._leaving = {waiter: marked for waiter, marked in self._leaving.items() if marked != model}

    def make_room(self, model: int, now: float) -> float | None:
        """Evict the least recently used of those that nobody uses, until the model fits: when the last of them is
        closed; None where it does not fit.
        """
        size = self._models[model].weights_mib
        while self._count >= self._capacity or self._weights + size > self._budget:
            unused = (i for i in self._used if self.state[i] == RESIDENT and not self._busy[i])
            victim = next(unused, None)
            if victim is None:
                return None
            now += self._models[victim].unload
            self.free(victim, now)
        return now

    def wait(self, model: int) -> None:
        """There is no room for it until a model that is lent is given back, which nobody may join from now on."""
        self._waiting.append(model)
        self.mark()

    def mark(self) -> None:
        """Find a model that goes for each of those who wait, as far as there are such models."""
        for waiter in self._waiting:
            if waiter not in self._leaving:
                marked = self._leaving.values()
                lent = (i for i in self._used if self.state[i] == RESIDENT and i not in marked)
                if (found := next(lent, None)) is None:
                    return
                self._leaving[waiter] = found

    def leaves(self, model: int) -> bool:
        """Whether it goes when it is given back."""
        return bool(self._leaving) and model in self._leaving.values()

    def next_in(self, now: float) -> tuple[int, float] | None:
        """The first of those who wait, if there is room for it now, and when that is empty."""
        if not self._waiting:
            return None
        empty = self.make_room(self._waiting[0], now)
        if empty is None:
            self.mark()
            return None
        waiter = self._waiting.popleft()
        self._leaving.pop(waiter, None)
        return waiter, empty
