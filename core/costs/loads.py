"""How a load's cost differs between disk and page cache, and the prices of loads that follow from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..results.economics import LoadsLacking
from ..results.header import TrialSpec
from ..results.recorded import PageCache
from ..stats.intervals import typical
from ..stats.rounds import Round, Run


@dataclass(frozen=True)
class Further:
    """How much more a load takes than those that were measured under the run's traffic; less, if negative."""

    ms: float = 0.0
    """Milliseconds that callers wait."""
    processor_s: float = 0.0


@dataclass(frozen=True)
class LoadPrice:
    """How the loads that a trial's requests waited for are priced."""

    page_cache: PageCache
    """`cold` or `warm`: where the checkpoint is assumed to be found."""
    rounds: Mapping[int, Further]
    lacking: LoadsLacking | None = None
    """Why loads could not be priced from the source that the prices call for."""

    @property
    def further(self) -> Further:
        """The median over rounds."""
        each = self.rounds.values()
        return Further(typical([f.ms for f in each]), typical([f.processor_s for f in each]))

    def in_round(self, number: int) -> Further:
        """The figures of that round, or of a typical one if it has none."""
        return self.rounds.get(number) or self.further


def load_price(run: Run, spec: TrialSpec, wanted: PageCache) -> LoadPrice | None:
    """The price of the loads of the trial that `spec` describes; `wanted` is the page cache from which loads are to be
    priced.

    If the trial's own loads were not measured separately, those of another one with the same loader stand for them.
    None if no request waited for a load.
    """
    rounds = run.finished(spec.label)
    if not any(cold_requests(each) for each in rounds):
        return None
    measured = run.header.page_cache
    if wanted == measured:
        return LoadPrice(measured, {each.number: Further() for each in rounds})
    alike = [other.label for other in run.header.trials if _loader(other) == _loader(spec)]
    for label in (spec.label, *alike):
        if found := _further(run.finished(label), wanted, measured):
            return LoadPrice(wanted, found)
    reasons = (reason for each in rounds if (reason := each.ended.loads_lacking))
    lacking = LoadsLacking(recorded=next(reasons, None))
    return LoadPrice(measured, {each.number: Further() for each in rounds}, lacking)


def cold_requests(each: Round) -> int:
    """How many of its answered requests waited for a load."""
    return sum(bool(sample.cold) for sample in each.answered)


def _loader(spec: TrialSpec) -> tuple[object, ...]:
    return spec.loader, spec.loader_options, spec.cluster


def _further(rounds: Sequence[Round], wanted: PageCache, measured: PageCache) -> dict[int, Further]:
    """By round, by how much the median of one kind of loads exceeds that of the other."""
    found = {}
    for each in rounds:
        kinds = [[load for load in each.loads if load.page_cache == kind] for kind in (wanted, measured)]
        if all(kinds) and all(load.processor_s is not None for kind in kinds for load in kind):
            ms = _exceeds(*([load.ms for load in kind] for kind in kinds))
            seconds = _exceeds(*([load.processor_s or 0.0 for load in kind] for kind in kinds))
            found[each.number] = Further(ms, seconds)
    return found


def _exceeds(values: Sequence[float], others: Sequence[float]) -> float:
    """By how much the median exceeds that of the others."""
    return float(np.median(values) - np.median(others))
