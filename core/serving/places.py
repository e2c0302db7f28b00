"""A limited number of places for requests, given in order of arrival."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress


class Places:
    """Gives requests a limited number of places. Those without one wait, in order of arrival. For one event loop."""

    def __init__(self) -> None:
        self.taken = 0
        self._limit = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self, limit: int) -> None:
        """Return with one of the places, of which there are `limit` from now on. `leave` gives it up."""
        self._limit = limit
        self._admit()
        if not self._waiting and self.taken < limit:
            self.taken += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it came at the same time
                self.leave()
            else:
                with suppress(ValueError):
                    self._waiting.remove(turn)
            raise

    def leave(self) -> None:
        """Give up a place."""
        self.taken -= 1
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self.taken < self._limit:
            turn = self._waiting.popleft()
            if not turn.done():
                self.taken += 1
                turn.set_result(None)
