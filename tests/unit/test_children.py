"""Processes that are started again when they end."""

from __future__ import annotations

import asyncio
import logging
import time
from itertools import pairwise

import pytest

from core.cluster.children import FIRST_PAUSE, LONGEST_PAUSE, Kept, next_pause, wait_until
from core.errors import NodeFailed


class Mortal:
    """A child that has ended when it is first looked at, and again after its first start; the second one fails."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.starts = 0

    @property
    def is_alive(self) -> bool:
        return self.starts == 1

    def start(self) -> None:
        self.starts += 1
        if self.starts == 2:
            raise NodeFailed("its address is in use.")

    def why(self) -> str:
        return "has ended with signal 9."


def test_a_child_that_has_ended_is_started_again_at_once(caplog: pytest.LogCaptureFixture) -> None:
    child = Mortal()
    kept = Kept("Node n1", child)

    async def run() -> bool:
        kept.keep()
        is_started = await wait_until(lambda: child.starts == 1, 60)
        await kept.release()
        return is_started

    with caplog.at_level(logging.ERROR, "residency"):
        assert asyncio.run(run())
    assert [record.getMessage() for record in caplog.records] == [
        "Node n1 has ended with signal 9. It is started again now."
    ]


def test_one_that_ends_again_and_again_is_started_less_and_less_often() -> None:
    pauses = [0.0]
    while pauses[-1] < LONGEST_PAUSE:
        pauses.append(next_pause(pauses[-1]))
    assert pauses[1] == FIRST_PAUSE
    assert all(after == min(LONGEST_PAUSE, 2 * before) for before, after in pairwise(pauses[1:]))
    assert next_pause(LONGEST_PAUSE) == LONGEST_PAUSE


def test_waiting_ends() -> None:
    assert asyncio.run(wait_until(lambda: False, 0.01)) is False
