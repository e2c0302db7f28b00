"""How long a forward pass, a load and all the rest take, each on its own, from a run's samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..errors import ResultsError
from ..results.plan_findings import NoteFinding, Unmeasured
from ..results.records import OK, Sample
from ..stats.rounds import Round

FEWEST = 5  # samples that times are drawn from; with fewer, those of models of its size are pooled, or else of all
ALIKE = 1.2  # times the size of a model: others within that are of its size
MOST = 5000  # samples that are kept of each kind
TOGETHER_MS = 50.0  # answers of one batch leave the server at once; the client has read them all after so long
Batch = tuple[Sample, int]  # one of its samples, and how many texts were computed together


@dataclass(frozen=True)
class Samples:
    """Requests of one kind."""

    records: list[Sample]
    alone: bool
    """Whether they had the server to themselves; else their time in the queue does not apply to a request that has."""
    weights: Mapping[str, float]
    """MiB of each model."""

    def of(self, model: str) -> Samples:
        """The samples of one model, or of models of its size, if there are enough; else all."""
        size = self.weights[model]
        alike = {name for name, mib in self.weights.items() if size / ALIKE <= mib <= size * ALIKE}
        for models in ({model}, alike):
            found = [sample for sample in self.records if sample.model in models]
            if len(found) >= FEWEST:
                return Samples(found, self.alone, self.weights)
        return self

    def seconds(self, part: str) -> tuple[float, ...]:
        """One part of their Server-Timing. Raises ResultsError."""
        return tuple(_part(sample, part) / 1e3 for sample in self.records[:MOST])

    def around(self) -> float:
        """Mean seconds outside the load and the forward pass: HTTP, the event loop, threads that wake.

        Raises ResultsError.
        """
        parts = ("load", "inference") if self.alone else ("queue", "load", "inference")
        rest = [sample.ms - sum(_part(sample, part) for part in parts) for sample in self.records]
        return max(0.0, float(np.mean(rest)) / 1e3)


def _part(sample: Sample, name: str) -> float:
    """Milliseconds of a part of its Server-Timing. Raises ResultsError."""
    if name not in sample.timing:
        raise ResultsError(f"In this run a server did not report the time of '{name}' under {sample.trial}.")
    return sample.timing[name]


class Times:
    """The times of one loader, in the steady state of its trials."""

    def __init__(self, rounds: Iterable[Round], loader: str, weights: Mapping[str, float]) -> None:
        """`weights` are those of each model in MiB. Raises ResultsError if no request waited for a load."""
        rounds = list(rounds)
        answered = [sample for each in rounds for sample in each.answered]
        alone = [sample for each in rounds for sample in lone(each)]
        self._batches = [batch for each in rounds for batch in batches(each) if not batch[0].cold]
        cold = [sample for sample in answered if sample.cold]
        # Only requests that waited for a whole load report its phases, if the loader has any.
        whole = [sample for sample in cold if any(name.startswith("load-") for name in sample.timing)]
        warm = [sample for sample in answered if not sample.cold]
        single = [sample for sample, size in self._batches if size == 1]
        self.cold = _alone_if_enough([sample for sample in alone if sample.cold], whole or cold, weights)
        self.warm = _alone_if_enough([sample for sample in alone if not sample.cold], single or warm, weights)
        self.notes: list[NoteFinding] = []
        if not cold:
            raise ResultsError(
                f"In this run no request waited for a load under the loader '{loader}', so the cost of a load is"
                " unknown: run it again with a strategy that loads for each request."
            )
        if not warm:
            self.warm = self.cold
            self.notes.append(Unmeasured(what="warm requests"))
        if sum(size > 1 for _, size in self._batches) < FEWEST:
            self.notes.append(Unmeasured(what="batches"))

    def loads(self) -> dict[str, tuple[float, ...]]:
        """The seconds of each model's own loads, of models that were loaded."""
        ids = sorted({sample.model for sample in self.cold.records})
        return {model: tuple(_part(s, "load") / 1e3 for s in self.cold.records if s.model == model) for model in ids}

    @cached_property
    def load_s(self) -> float:
        """The mean of all loads."""
        return float(np.mean(self.cold.seconds("load")))

    def further(self, model: str) -> float:
        """Seconds that each further text of a batch adds to a forward pass: the median over batches."""
        single = float(np.median(self.warm.of(model).seconds("inference")))
        large = [batch for batch in self._batches if batch[1] > 1]
        own = [batch for batch in large if batch[0].model == model]
        added = [_added(batch, single) for batch in (own if len(own) >= FEWEST else large)]
        return max(0.0, float(np.median(added))) if len(added) >= FEWEST else single


@dataclass(frozen=True)
class Unloading:
    """What it takes to close a model, on average."""

    seconds: float
    notes: tuple[NoteFinding, ...] = ()


def unloading_of(rounds: Iterable[Round]) -> Unloading:
    """Over all models and unloads of these rounds."""
    known = [(ended.unload_s, ended.unloads) for ended in (each.ended for each in rounds) if ended.unload_s is not None]
    if unloads := sum(count for _, count in known):
        return Unloading(sum(seconds for seconds, _ in known) / unloads)
    return Unloading(0.0, (Unmeasured(what="unloads"),))


def lone(each: Round) -> list[Sample]:
    """The answered samples that had the server to themselves when they arrived."""
    if (timed := _timed(each.steady)) is None:  # one request after the other
        return each.answered
    found, end = [], 0.0
    for at, sample in sorted(timed, key=lambda pair: pair[0]):
        if at >= end and sample.status == OK:
            found.append(sample)
        end = max(end, at + sample.ms / 1e3)
    return found


def batches(each: Round) -> list[Batch]:
    """What was computed together: answers of one model that came at once and report the same time of the forward pass,
    to the microsecond. Raises ResultsError.
    """
    if _timed(each.steady) is None:
        return []
    found: list[Batch] = []
    latest: dict[tuple[str, float], tuple[int, float]] = {}  # index in `found`, milliseconds of its first answer
    answered = [(at * 1e3 + sample.ms, sample) for at, sample in _timed(each.answered) or []]
    for now, sample in sorted(answered, key=lambda pair: pair[0]):
        key = (sample.model, _part(sample, "inference"))
        index, first = latest.get(key, (-1, -np.inf))
        if now - first < TOGETHER_MS:
            found[index] = found[index][0], found[index][1] + 1
        else:
            latest[key] = len(found), now
            found.append((sample, 1))
    return found


def _timed(samples: Iterable[Sample]) -> list[tuple[float, Sample]] | None:
    """Each with the time when it was due, in seconds since the steady state began; None if one has no time."""
    timed = [(sample.at, sample) for sample in samples]
    known = [(at, sample) for at, sample in timed if at is not None]
    return known if len(known) == len(timed) else None


def _added(batch: Batch, single: float) -> float:
    sample, size = batch
    return (_part(sample, "inference") / 1e3 - single) / (size - 1)


def _alone_if_enough(alone: list[Sample], otherwise: list[Sample], weights: Mapping[str, float]) -> Samples:
    if len(alone) >= min(FEWEST, len(otherwise)):
        return Samples(alone, True, weights)
    return Samples(otherwise, False, weights)
