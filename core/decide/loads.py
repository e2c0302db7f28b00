"""What a load takes from the other page cache than the run's, and the prices of loads that follow from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .intervals import typical
from .rounds import Record, Round, Run

NOT_MEASURED = "no load of each kind was measured by itself"


@dataclass(frozen=True)
class Further:
    """What a load takes more than those that were measured under the run's traffic; less, where negative."""

    ms: float = 0.0
    """Of waiting."""
    processor_s: float = 0.0


@dataclass(frozen=True)
class LoadPrice:
    """How the loads of a trial are priced that its requests waited for."""

    page_cache: str
    """`cold` or `warm`: where the checkpoint is taken to be found."""
    rounds: Mapping[int, Further]
    lacking: str = ""
    """Why that is not where the prices put it."""

    @property
    def further(self) -> Further:
        """Of a typical round."""
        each = self.rounds.values()
        return Further(typical([f.ms for f in each]), typical([f.processor_s for f in each]))

    def in_round(self, number: int) -> Further:
        """That of the round, or of a typical one where it has none."""
        return self.rounds.get(number) or self.further


def load_price(run: Run, spec: Record, wanted: str) -> LoadPrice | None:
    """Of the trial that the header describes so; `wanted` is the page cache that loads are to be priced from.

    Where the trial's own loads were not measured by themselves, those of another one with the same loader stand for
    them. None where no request waited for a load.
    """
    rounds = run.finished(spec["label"])
    if not any(cold_requests(each) for each in rounds):
        return None
    measured = str(run.header["page_cache"])
    if wanted == measured:
        return LoadPrice(measured, {each.number: Further() for each in rounds})
    alike = [other["label"] for other in run.header["trials"] if _loader(other) == _loader(spec)]
    for label in (spec["label"], *alike):
        if found := _further(run.finished(label), wanted, measured):
            return LoadPrice(wanted, found)
    reasons = (reason for each in rounds if (reason := each.ended.get("loads_lacking")))
    return LoadPrice(measured, {each.number: Further() for each in rounds}, next(reasons, NOT_MEASURED))


def cold_requests(each: Round) -> int:
    """How many of its answered requests waited for a load."""
    return sum(bool(sample.get("cold")) for sample in each.answered)


def _loader(spec: Record) -> tuple[object, ...]:
    return spec["loader"], spec["loader_options"]


def _further(rounds: Sequence[Round], wanted: str, measured: str) -> dict[int, Further]:
    """By round, how much the median of one kind of loads is above that of the other."""
    found = {}
    for each in rounds:
        kinds = [[load for load in each.loads if load["page_cache"] == kind] for kind in (wanted, measured)]
        if all(kinds) and all(load["processor_s"] is not None for kind in kinds for load in kind):
            ms, seconds = (
                float(np.subtract(*(np.median([load[key] for load in kind]) for kind in kinds)))
                for key in ("ms", "processor_s")
            )
            found[each.number] = Further(ms, seconds)
    return found
