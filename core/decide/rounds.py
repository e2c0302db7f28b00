"""A run's records, arranged by trial and round: what was finished, what failed, what does not count."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from .statistics import percentile

Record = dict[str, Any]
OK = 200
MIB = 1 << 20
RATIOS = ("p50", "mean", "p99", "throughput", "idle_pss", "idle_private")
DIFFERENCES = ("cold_share", "loads_per_request")
"""The statistics that are compared, one value for each server process: milliseconds, answers per second and MiB by
their ratio, and what may be 0 by its difference.
"""


@dataclass(frozen=True)
class Round:
    """One trial in one round that ran to its end: one server process."""

    number: int
    ended: Record
    """The trial's record."""
    samples: list[Record]
    loads: list[Record] = field(default_factory=list)
    """The loads that were measured separately, after the requests."""

    @cached_property
    def steady(self) -> list[Record]:
        """The samples after the first request."""
        return [sample for sample in self.samples if not sample["first"]]

    @cached_property
    def answered(self) -> list[Record]:
        """The samples of the steady state that were answered without an error."""
        return [sample for sample in self.steady if sample["status"] == OK]

    @property
    def most_rss(self) -> float | None:
        """MiB of resident memory that it held at most, start-up included; None if the system does not report it."""
        peaks = [self.ended["memory_mib"].get(name) for name in ("start_peak_rss", "peak_rss")]
        return None if None in peaks else max(peaks)

    @cached_property
    def statistics(self) -> dict[str, float | None]:
        """This process's `RATIOS` and `DIFFERENCES`; None for those that its samples do not support."""
        latencies = [sample["ms"] for sample in self.answered]
        seconds, loads = self.ended["steady_s"], self.ended.get("steady_loads")
        return {
            "p50": percentile(latencies, 0.5),
            "mean": float(np.mean(latencies)) if latencies else None,
            "p99": percentile(latencies, 0.99),
            "throughput": len(latencies) / seconds if latencies and seconds > 0 else None,
            "idle_pss": self.ended["memory_mib"]["idle_pss"],
            "idle_private": self.ended["memory_mib"]["idle_private"],
            "cold_share": sum(bool(s["cold"]) for s in self.answered) / len(latencies) if latencies else None,
            "loads_per_request": loads / len(self.steady) if loads is not None and self.steady else None,
        }


@dataclass
class _Attempt:
    """An attempt at one trial in one round, since the latest "begin"."""

    samples: list[Record] = field(default_factory=list)
    loads: list[Record] = field(default_factory=list)
    ended: Record | None = None
    failure: Record | None = None


@dataclass(frozen=True)
class Run:
    """A run's records, arranged."""

    header: Record
    """Its "run" record."""
    rounds: dict[str, dict[int, Round]]
    """By trial label and number; only those that ran to their end."""
    failures: list[Record]
    stop: Record | None
    """The record of why it ended before its cap; else None."""

    @property
    def labels(self) -> list[str]:
        """The labels of its trials, in the order of the file."""
        return list(self.rounds)

    @property
    def rounds_due(self) -> int:
        """How many rounds each trial should have finished."""
        return int(self.stop["round"]) + 1 if self.stop else int(self.header["rounds"])

    def finished(self, label: str) -> list[Round]:
        """The rounds that this trial finished, in their order."""
        return [self.rounds[label][number] for number in sorted(self.rounds[label])]

    def complete(self) -> list[int]:
        """The rounds that every trial finished."""
        return sorted(set.intersection(*(set(rounds) for rounds in self.rounds.values()))) if self.rounds else []


def generator(rounds: Sequence[Round]) -> dict[str, float] | None:
    """The load generator's worst figures of a round: `cores`, `lag_p99_ms` of its sends, `late_share` of them.

    None without a workload.
    """
    known = [measured for each in rounds if (measured := each.ended.get("generator")) and measured["seconds"] > 0]
    if not known:
        return None
    return {
        "cores": max(measured["processor_s"] / measured["seconds"] for measured in known),
        "lag_p99_ms": max(measured["lag_p99_ms"] for measured in known),
        "late_share": max(measured["late_share"] for measured in known),
    }


def arrange(records: Sequence[Record]) -> Run:
    """The run of these records. Of several attempts at one trial in one round, only the latest counts."""
    attempts: defaultdict[tuple[str, int], _Attempt] = defaultdict(_Attempt)
    stop = None
    for record in records[1:]:
        kind = record["kind"]
        if kind == "stop":
            stop = record
            continue
        place = record["trial"], record["round"]
        if kind == "begin":
            attempts[place] = _Attempt()
        elif kind == "sample":
            attempts[place].samples.append(record)
        elif kind == "load":
            attempts[place].loads.append(record)
        elif kind == "trial":
            attempts[place].ended = record
        elif kind == "failure":
            attempts[place].failure = record
    rounds: dict[str, dict[int, Round]] = {trial["label"]: {} for trial in records[0]["trials"]}
    for (label, number), attempt in attempts.items():
        if attempt.ended is not None:
            rounds[label][number] = Round(number, attempt.ended, attempt.samples, attempt.loads)
    failures = [attempt.failure for attempt in attempts.values() if attempt.failure is not None]
    header = records[0] | {"trials": [_as_used(trial, rounds[trial["label"]]) for trial in records[0]["trials"]]}
    return Run(header, rounds, failures, stop)


def _as_used(trial: Record, rounds: Mapping[int, Round]) -> Record:
    """The header's description of a trial, with the loaders and the dtype that its servers reported.

    Older records name no loader, since there was only one.
    """
    trial = {"loader": "transformers", "loader_options": {}, **trial}
    told = [each for number in sorted(rounds) for each in rounds[number].ended.get("used", [])]
    loaders, dtypes = ({each[key] for each in told if each[key]} for key in ("loader", "dtype"))
    asked = trial.get("dtype")
    changed: Record = {"asked_dtype": asked, "used_loaders": sorted(loaders) or [trial["loader"]]}
    if asked and dtypes:
        changed["dtype"] = ", ".join(sorted(dtypes))
    if told:
        mib = trial["model_mib"] | {each["model"]: each["nbytes"] / MIB for each in told}
        changed |= {"model_mib": mib, "weights_mib": sum(mib.values())}
    return trial | changed
