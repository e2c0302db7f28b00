"""What a server's memory and CPU time are made of, estimated from the processes of a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ..results.plan_findings import MemoryUncertain, ModelsAlmostFree, NoteFinding, Unmeasured
from ..stats.intervals import VERDICT_ROUNDS, interval
from ..stats.rounds import Round

FREE = 0.02  # of the weights, below which keeping a model is almost free
APART = 1.2  # average sizes of loads that differ by less do not tell how CPU time grows with the size
WIDE = 0.1  # half of an interval, of its middle, beyond which it is reported: the target of the simulator's error


@dataclass(frozen=True)
class Memory:
    """Charged memory between requests: `base_mib`, and for each MiB of weights in memory `per_weight` MiB."""

    base_mib: float
    per_weight: float
    notes: tuple[NoteFinding, ...] = ()


@dataclass(frozen=True)
class Resident:
    """Resident memory, in MiB, to which a limit and a billed size apply."""

    base_mib: float
    """The memory of a server without a model, between requests."""
    per_weight: float
    working_mib: float
    """The most that a server took, in start-up and forward passes, too, beyond the models that it held."""

    def most(self, weights_mib: float) -> float:
        """The most memory of a server that holds at most so many MiB of weights."""
        return self.base_mib + self.working_mib + self.per_weight * weights_mib


@dataclass(frozen=True)
class Processor:
    """Core seconds of a request and of a load; None if they were not measured."""

    request: float | None
    load: float | None
    """The CPU time of a load of 0 MiB, or of an average one if `load_per_mib` is None."""
    load_per_mib: float | None = None
    """None if loads were not measured at sizes that differ enough."""
    notes: tuple[NoteFinding, ...] = ()

    def of_load(self, mib: float, seconds: float, average_s: float) -> float:
        """The CPU time of a load of that size that takes so many seconds, where an average one takes `average_s`."""
        assert self.load is not None
        if self.load_per_mib is not None:
            return self.load + self.load_per_mib * mib
        return self.load * seconds / average_s if average_s else self.load


def memory_of(rounds: Sequence[Round], weights: Mapping[str, float], kind: str) -> Memory:
    """The memory of an empty server and of a MiB of weights, of that kind: `pss`, `private` or `rss`; `weights` are
    those of each model in MiB.

    Servers with more and with fewer weights are compared within each round. One odd process decides nothing: the result
    is the median over rounds, and for the empty server over processes.
    """
    points: defaultdict[int, list[tuple[float, float]]] = defaultdict(list)
    for each in rounds:
        if (idle := each.ended.memory_mib.idle(kind)) is not None:
            points[each.number].append((_held(each, weights), idle))
    every = [point for found in points.values() for point in found]
    if not every:
        return Memory(0.0, 1.0, (Unmeasured(what="memory"),))
    slopes = [slope for found in points.values() if (slope := _slope(found)) is not None]
    if not slopes and (slope := _slope(every)) is not None:  # no round had both
        slopes = [slope]
    if not slopes:
        base = float(np.median([idle - x for x, idle in every]))
        return Memory(max(0.0, base), 1.0, (Unmeasured(what="memory of a model"),))
    per_weight = max(0.0, float(np.median(slopes)))
    base = float(np.median([idle - per_weight * x for x, idle in every]))
    return Memory(max(0.0, base), per_weight, tuple(_doubts(slopes)))


def resident_of(rounds: Sequence[Round], weights: Mapping[str, float]) -> Resident | None:
    """The resident memory of a server; None if it was not measured."""
    memory = memory_of(rounds, weights, "rss")
    average = sum(weights.values()) / len(weights)
    beyond = []
    for each in rounds:
        most = each.most_rss
        if most is not None and each.ended.memory_mib.idle_rss is not None:
            held = _held(each, weights) or average
            beyond.append(most - memory.base_mib - memory.per_weight * held)
    return Resident(memory.base_mib, memory.per_weight, max(0.0, *beyond)) if beyond else None


def _held(each: Round, weights: Mapping[str, float]) -> float:
    """MiB of weights in memory at the end of a round: what was loaded and not unloaded."""
    ended, average = each.ended, sum(weights.values()) / len(weights)
    held = ended.loads - ended.unloads
    if ended.resident is not None and len(ended.resident) == held:
        return sum(weights.get(model, average) for model in ended.resident)
    return held * average


def _slope(points: Sequence[tuple[float, float]]) -> float | None:
    """The median, over pairs of servers with more and fewer weights, of what each further MiB of weights takes."""
    pairs = [(one, other) for one, other in combinations(points, 2) if one[0] != other[0]]
    return float(np.median([(a[1] - b[1]) / (a[0] - b[0]) for a, b in pairs])) if pairs else None


def _doubts(slopes: Sequence[float]) -> Iterator[NoteFinding]:
    middle = float(np.median(slopes))
    ci95 = interval(slopes)[:2] if len(slopes) >= VERDICT_ROUNDS else None
    if middle <= FREE:
        yield ModelsAlmostFree(per_weight=middle, ci95=ci95, rounds=len(slopes))
    elif ci95 is not None and (ci95[1] - ci95[0]) / 2 > WIDE * middle:
        yield MemoryUncertain(per_weight=middle, ci95=ci95, rounds=len(slopes))


def processor_of(rounds: Sequence[Round], weights: Mapping[str, float]) -> Processor:
    """The CPU time of a request and of a load, by non-negative least squares over what each process took on its
    requests and loads, and on the MiB that these loaded; `weights` are those of each model in MiB.

    Loads before the steady state do not count: those of a persistent server, and otherwise that of the first request.
    """
    measured = []
    for each in rounds:
        sizes = [weights[sample.model] for sample in each.answered if sample.cold]
        loads = max(0, each.ended.loads - 1) if sizes else 0
        if (taken := each.ended.processor_s) is not None and each.steady:
            measured.append((len(each.steady), loads, loads * float(np.mean(sizes or [0.0])), taken))
    if not measured:
        return Processor(None, None, notes=(Unmeasured(what="CPU time"),))
    rows = np.array(measured, dtype=float)
    counts, seconds = rows[:, :3], rows[:, 3]
    if np.linalg.matrix_rank(counts[:, :2]) < 2:
        return Processor(None, None, notes=(Unmeasured(what="CPU time of loads"),))
    from scipy.optimize import nnls  # takes a while to import, and most commands need none of it

    average = [mib / loads for _, loads, mib, _ in measured if loads]
    if max(average) >= APART * min(average) and np.linalg.matrix_rank(counts) == 3:
        request, load, per_mib = nnls(counts, seconds)[0]
        return Processor(float(request), float(load), float(per_mib))
    request, load = nnls(counts[:, :2], seconds)[0]
    return Processor(float(request), float(load))
