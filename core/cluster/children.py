"""Processes that are started again when they end: at once, and then less and less soon."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from ..errors import ResidencyError

log = logging.getLogger("residency")
POLL_SECONDS = 0.05
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds between an end and the next start
LASTING = 60.0  # seconds after which a process is no longer one that cannot run


class Child(Protocol):
    """A process."""

    started: float
    """On the clock of time.monotonic."""

    @property
    def is_alive(self) -> bool: ...
    def start(self) -> None: ...
    def why(self) -> str:
        """How it ended, and why, in words that follow its name."""
        ...


class Kept:
    """A child that runs until it is released."""

    def __init__(self, name: str, child: Child) -> None:
        self._name = name
        self._child = child
        self._task: asyncio.Task[None] | None = None

    def keep(self) -> None:
        """Start the child again from now on whenever it ends."""
        self._task = asyncio.create_task(self._watch())

    async def release(self) -> None:
        """Let the child end."""
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _watch(self) -> None:
        pause = 0.0
        while True:
            while self._child.is_alive:
                await asyncio.sleep(POLL_SECONDS)
            if time.monotonic() - self._child.started > LASTING:
                pause = 0.0
            when = f"in {pause:g} s" if pause else "now"
            log.error("%s %s It is started again %s.", self._name, self._child.why(), when)
            await asyncio.sleep(pause)
            pause = next_pause(pause)
            try:
                self._child.start()
            except (ResidencyError, OSError) as error:
                log.error("%s cannot be started: %s", self._name, error)


def next_pause(pause: float) -> float:
    """The seconds before a start, if those before the last one were `pause`."""
    return min(LONGEST_PAUSE, max(FIRST_PAUSE, 2 * pause))


async def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until the condition holds, for at most some seconds. Returns whether it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True
