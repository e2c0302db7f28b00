"""What a simulated server counts, and the outcome that is made of it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..residency.decisions import Decisions
from .counts import Counts
from .outcome import Outcome

MAX_QUEUE = 128  # requests for one model that are not answered yet; beyond, a served app says 503


class Tally:
    """Times in seconds; models by index. A server that is simulated adds to it, and does so millions of times."""

    def __init__(self, decisions: Decisions) -> None:
        self._decisions = decisions
        self._latencies: list[float] = []
        self._at_first: list[int] = []  # indices of latencies
        self._cold = self._longest = 0
        self._loads_of: list[int] = []
        self._work: list[float] = []
        self._slot_work = 0.0
        self._held = self._peak = 0.0
        self._copies_of: list[int] = []  # in memory, or being loaded
        self._mib_seconds_of: list[float] = []  # of copies that have left, minus what those in memory began with
        self._weights_held = self._weights_peak = 0.0
        self._mib: list[float] = []
        self._weights_mib: list[float] = []
        self._queues: list[deque[float]] = []
        self._done = math.inf  # when the compute slot is free: it computes these requests for that model
        self._running, self._batch = 0, [0.0]
        self._begin = self._counts(0.0, [])
        self._middle: tuple[Counts, Outcome] | None = None  # when the first half ends, and its outcome

    def _count_model(self, mib: float, weights_mib: float) -> None:
        """Count one model more, which has the next index."""
        self._mib.append(mib)
        self._weights_mib.append(weights_mib)
        self._queues.append(deque())
        self._loads_of.append(0)
        self._work.append(0.0)
        self._copies_of.append(0)
        self._mib_seconds_of.append(0.0)

    def _end_half(self, now: float, asked: Sequence[int]) -> None:
        """Record the outcome of the first half, with these requests, when the first one of the second half arrives."""
        counts = self._counts(now, asked)
        self._middle = counts, self._between(self._begin, counts)
        self._peak, self._weights_peak = self._held, self._weights_held

    def _outcome(self, now: float, asked: Sequence[int]) -> Outcome:
        end = self._counts(now, asked)
        if self._middle is None:
            return self._between(self._begin, end)
        counts, first = self._middle
        second = self._between(counts, end)
        self._peak = max(first.peak_mib, second.peak_mib)
        self._weights_peak = max(first.weights_mib, second.weights_mib)
        return replace(self._between(self._begin, end), halves=(first, second))

    def _counts(self, now: float, asked: Sequence[int]) -> Counts:
        """What was counted until now, when these have been requested."""
        answered = np.bincount(np.array(asked, dtype=int), minlength=len(self._mib))
        answered -= np.array([len(queue) for queue in self._queues], dtype=int)
        if self._done < math.inf:
            answered[self._running] -= len(self._batch)
        held = zip(self._mib_seconds_of, self._copies_of, self._mib, strict=True)
        return Counts(
            seconds=now,
            answers=len(self._latencies),
            cold=self._cold,
            requests=answered.tolist(),
            loads=self._loads_of[:],
            mib_seconds_of=[ended + copies * mib * now for ended, copies, mib in held],
            work=self._work[:],
            slot_work=self._slot_work,
        )

    def _between(self, begin: Counts, end: Counts) -> Outcome:
        """The outcome of the time between two moments, with the present peaks."""
        part = end.since(begin)
        at_first = np.zeros(part.answers, dtype=bool)
        at_first[[each - begin.answers for each in self._at_first if begin.answers <= each < end.answers]] = True
        return Outcome(
            latencies=np.array(self._latencies[begin.answers : end.answers]),
            at_first=at_first,
            requests=part.requests,
            cold=part.cold,
            loads=part.loads,
            least_keep=self._decisions.least_keep,
            seconds=part.seconds,
            mib_seconds_of=part.mib_seconds_of,
            peak_mib=self._peak,
            weights_mib=self._weights_peak,
            busy=max([*part.work, part.slot_work]) / part.seconds if part.seconds else 0.0,
            exceeded=self._longest > MAX_QUEUE,
        )
