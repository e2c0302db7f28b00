"""How long a forward pass, a load and all the rest take, each on its own, from a run's samples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..decide.rounds import OK, Record, Round
from ..errors import ResultsError

FEWEST = 5  # samples that times are drawn from; with fewer, those of all models are pooled
MOST = 5000  # samples that are kept of each kind
TOGETHER_MS = 50.0  # answers of one batch leave the server at once; the client has read them all after so long
Batch = tuple[Record, int]  # one of its samples, and how many texts were computed together


@dataclass(frozen=True)
class Samples:
    """Requests of one kind."""

    records: list[Record]
    alone: bool
    """Whether they had the server to themselves; else their time in the queue does not apply to a request that has."""

    def of(self, model: str) -> Samples:
        """The samples of one model, if there are enough."""
        own = [sample for sample in self.records if sample["model"] == model]
        return Samples(own, self.alone) if len(own) >= FEWEST else self

    def seconds(self, part: str) -> tuple[float, ...]:
        """One part of their Server-Timing."""
        return tuple(sample["timing"][part] / 1e3 for sample in self.records[:MOST])

    def around(self) -> float:
        """Mean seconds outside the load and the forward pass: HTTP, the event loop, threads that wake."""
        parts = ("load", "inference") if self.alone else ("queue", "load", "inference")
        rest = [sample["ms"] - sum(sample["timing"][part] for part in parts) for sample in self.records]
        return max(0.0, float(np.mean(rest)) / 1e3)


class Times:
    """The times of one loader, in the steady state of its trials."""

    def __init__(self, rounds: Iterable[Round], loader: str) -> None:
        """Raises ResultsError if no request waited for a load."""
        rounds = list(rounds)
        answered = [sample for each in rounds for sample in each.answered]
        alone = [sample for each in rounds for sample in lone(each)]
        self._batches = [batch for each in rounds for batch in batches(each) if not batch[0]["cold"]]
        cold = [sample for sample in answered if sample["cold"]]
        # Only requests that waited for a whole load report its phases, if the loader has any.
        whole = [sample for sample in cold if any(name.startswith("load-") for name in sample["timing"])]
        warm = [sample for sample in answered if not sample["cold"]]
        single = [sample for sample, size in self._batches if size == 1]
        self.cold = _alone_if_enough([sample for sample in alone if sample["cold"]], whole or cold)
        self.warm = _alone_if_enough([sample for sample in alone if not sample["cold"]], single or warm)
        self.notes: list[str] = []
        if not cold:
            raise ResultsError(
                f"In this run no request waited for a load under the loader '{loader}', so the cost of a load is"
                " unknown: run it again with a strategy that loads for each request."
            )
        if not warm:
            self.warm = self.cold
            self.notes.append("no request was warm; a warm forward pass is assumed to take as long as after a load.")
        if sum(size > 1 for _, size in self._batches) < FEWEST:
            self.notes.append("batches were not measured; each further text is assumed to cost as much as the first.")

    def further(self, model: str) -> float:
        """Seconds that each further text of a batch adds to a forward pass: the median over batches."""
        single = float(np.median(self.warm.of(model).seconds("inference")))
        large = [batch for batch in self._batches if batch[1] > 1]
        own = [batch for batch in large if batch[0]["model"] == model]
        added = [_added(batch, single) for batch in (own if len(own) >= FEWEST else large)]
        return max(0.0, float(np.median(added))) if len(added) >= FEWEST else single


@dataclass(frozen=True)
class Unloading:
    """What it takes to close a model, on average."""

    seconds: float
    notes: tuple[str, ...] = ()


def unloading_of(rounds: Iterable[Round]) -> Unloading:
    """Over all models and unloads of these rounds."""
    ended = [each.ended for each in rounds if each.ended.get("unload_s") is not None]
    if unloads := sum(end["unloads"] for end in ended):
        return Unloading(sum(end["unload_s"] for end in ended) / unloads)
    return Unloading(0.0, ("how long an unload takes was not measured; it is assumed to take no time.",))


def lone(each: Round) -> list[Record]:
    """The answered samples that had the server to themselves when they arrived."""
    if any("at" not in sample for sample in each.steady):  # one request after the other
        return each.answered
    found, end = [], 0.0
    for sample in sorted(each.steady, key=lambda sample: float(sample["at"])):
        if sample["at"] >= end and sample["status"] == OK:
            found.append(sample)
        end = max(end, sample["at"] + sample["ms"] / 1e3)
    return found


def batches(each: Round) -> list[Batch]:
    """What was computed together: answers of one model that came at once and report the same time of the forward pass,
    to the microsecond.
    """
    if any("at" not in sample for sample in each.steady):
        return []
    found: list[Batch] = []
    latest: dict[tuple[str, float], tuple[int, float]] = {}  # index in `found`, milliseconds of its first answer
    for sample in sorted(each.answered, key=_answered_at):
        key, now = (sample["model"], sample["timing"]["inference"]), _answered_at(sample)
        index, first = latest.get(key, (-1, -np.inf))
        if now - first < TOGETHER_MS:
            found[index] = found[index][0], found[index][1] + 1
        else:
            latest[key] = len(found), now
            found.append((sample, 1))
    return found


def _answered_at(sample: Record) -> float:
    """Milliseconds since the steady state began."""
    return float(sample["at"] * 1e3 + sample["ms"])


def _added(batch: Batch, single: float) -> float:
    sample, size = batch
    return (float(sample["timing"]["inference"]) / 1e3 - single) / (size - 1)


def _alone_if_enough(alone: list[Record], otherwise: list[Record]) -> Samples:
    return Samples(alone, True) if len(alone) >= min(FEWEST, len(otherwise)) else Samples(otherwise, False)
