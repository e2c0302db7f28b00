"""A run's records, arranged by trial and round: what was finished, what failed, what does not count."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..results.comparisons import StatisticName
from ..results.figures import GeneratorFigures
from ..results.folder import RunRecords
from ..results.header import RunHeader, TrialSpec
from ..results.records import OK, Begin, Failure, Load, Machine, Sample, Stop, TrialEnd
from .estimates import percentile

MIB = 1 << 20
RATIOS: tuple[StatisticName, ...] = ("p50", "mean", "p99", "throughput", "idle_pss", "idle_private")
DIFFERENCES: tuple[StatisticName, ...] = ("cold_share", "loads_per_request")
"""The statistics that are compared, one value for each server process: milliseconds, answers per second and MiB by
their ratio, and what may be 0 by its difference.
"""


@dataclass(frozen=True)
class Round:
    """One trial in one round that ran to its end: one server process."""

    number: int
    ended: TrialEnd
    samples: list[Sample]
    loads: list[Load] = field(default_factory=list)
    """The loads that were measured separately, after the requests."""

    @cached_property
    def steady(self) -> list[Sample]:
        """The samples after the first request."""
        return [sample for sample in self.samples if not sample.first]

    @cached_property
    def answered(self) -> list[Sample]:
        """The samples of the steady state that were answered without an error."""
        return [sample for sample in self.steady if sample.status == OK]

    @property
    def most_rss(self) -> float | None:
        """MiB of resident memory that it held at most, start-up included; None if the system does not report it."""
        start, steady = self.ended.memory_mib.start_peak_rss, self.ended.memory_mib.peak_rss
        return None if start is None or steady is None else max(start, steady)

    @cached_property
    def statistics(self) -> dict[StatisticName, float | None]:
        """This process's `RATIOS` and `DIFFERENCES`; None for those that its samples do not support."""
        latencies = [sample.ms for sample in self.answered]
        seconds, loads = self.ended.steady_s, self.ended.steady_loads
        return {
            "p50": percentile(latencies, 0.5),
            "mean": float(np.mean(latencies)) if latencies else None,
            "p99": percentile(latencies, 0.99),
            "throughput": len(latencies) / seconds if latencies and seconds > 0 else None,
            "idle_pss": self.ended.memory_mib.idle_pss,
            "idle_private": self.ended.memory_mib.idle_private,
            "cold_share": sum(bool(sample.cold) for sample in self.answered) / len(latencies) if latencies else None,
            "loads_per_request": loads / len(self.steady) if loads is not None and self.steady else None,
        }


@dataclass
class _Attempt:
    """An attempt at one trial in one round, since the latest "begin"."""

    samples: list[Sample] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)
    ended: TrialEnd | None = None
    failure: Failure | None = None


@dataclass(frozen=True)
class AsUsed:
    """What a trial's servers used, or what was asked for if they did not report it."""

    loaders: list[str]
    dtype: str
    model_mib: dict[str, float]
    """The weights by model id; empty if that is not known."""
    weights_mib: float
    """The weights of all models."""


@dataclass(frozen=True)
class Run:
    """A run's records, arranged."""

    header: RunHeader
    rounds: dict[str, dict[int, Round]]
    """By trial label and number; only those that ran to their end."""
    failures: list[Failure]
    stop: Stop | None
    """Why it ended before its cap; else None."""
    machines: dict[int, Machine] = field(default_factory=dict)
    """The machine of each round, by number; empty if all ran where the run was started."""

    @property
    def labels(self) -> list[str]:
        """The labels of its trials, in the order of the file."""
        return list(self.rounds)

    @property
    def rounds_due(self) -> int:
        """How many rounds each trial should have finished."""
        return self.header.rounds if self.stop is None else self.stop.round + 1

    @cached_property
    def used(self) -> dict[str, AsUsed]:
        """By trial label, what its servers used in the rounds that it finished."""
        engines = {model_id for model_id, model in self.header.models.items() if model.engine}
        return {spec.label: _as_used(spec, self.finished(spec.label), engines) for spec in self.header.trials}

    def spec(self, label: str) -> TrialSpec:
        """The trial of that label as the experiment asks for it."""
        return next(spec for spec in self.header.trials if spec.label == label)

    def finished(self, label: str) -> list[Round]:
        """The rounds that this trial finished, in their order."""
        return [self.rounds[label][number] for number in sorted(self.rounds[label])]

    def complete(self) -> list[int]:
        """The rounds that every trial finished."""
        return sorted(set.intersection(*(set(rounds) for rounds in self.rounds.values()))) if self.rounds else []


def _as_used(spec: TrialSpec, rounds: Sequence[Round], engines: Collection[str]) -> AsUsed:
    """What the servers of these rounds reported. `engines` are models that no loader loads."""
    told = [model for each in rounds for model in each.ended.used]
    loaders = sorted({model.loader for model in told if model.loader and model.model not in engines})
    dtypes = sorted({model.dtype for model in told if model.dtype})
    mib = spec.model_mib | {model.model: model.nbytes / MIB for model in told}
    return AsUsed(
        loaders=loaders or [spec.loader],
        dtype=", ".join(dtypes) or spec.dtype,
        model_mib=mib,
        weights_mib=sum(mib.values()) if told else spec.weights_mib,
    )


def generator(rounds: Sequence[Round]) -> GeneratorFigures | None:
    """The load generator's worst figures of a round; None without a workload."""
    known = [found for each in rounds if (found := each.ended.generator) is not None and found.seconds > 0]
    if not known:
        return None
    return GeneratorFigures(
        cores=max(found.processor_s / found.seconds for found in known),
        lag_p99_ms=max(found.lag_p99_ms for found in known),
        late_share=max(found.late_share for found in known),
    )


def arrange(records: RunRecords) -> Run:
    """The run of these records. Of several attempts at one trial in one round, only the latest counts."""
    attempts: defaultdict[tuple[str, int], _Attempt] = defaultdict(_Attempt)
    for record in records.measured:
        if isinstance(record, Stop | Machine):
            continue
        place = record.trial, record.round
        if isinstance(record, Begin):
            attempts[place] = _Attempt()
        elif isinstance(record, Sample):
            attempts[place].samples.append(record)
        elif isinstance(record, Load):
            attempts[place].loads.append(record)
        elif isinstance(record, TrialEnd):
            attempts[place].ended = record
        else:
            attempts[place].failure = record
    rounds: dict[str, dict[int, Round]] = {trial.label: {} for trial in records.header.trials}
    for (label, number), attempt in attempts.items():
        if attempt.ended is not None:
            rounds[label][number] = Round(number, attempt.ended, attempt.samples, attempt.loads)
    failures = [attempt.failure for attempt in attempts.values() if attempt.failure is not None]
    return Run(records.header, rounds, failures, records.stop, records.machines)
