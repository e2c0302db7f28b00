"""The card: what to use."""

from __future__ import annotations

from typing import Literal

from .answers import Settles
from .flips import FLIPS, Flip, Rates
from .header import Lifecycle
from .notes import Finding
from .recorded import Recorded


class Settings(Recorded):
    """Settings to paste."""

    label: str
    """The trial that has them."""
    rates: Rates | None
    """The rates for which they are recommended; None: those of the run."""
    route: str
    """The path of the prediction requests that they serve."""
    yaml: str
    """The file for `RESIDENCY_CONFIG`; empty if no settings of ours serve it."""
    lifecycle: Lifecycle | None = None
    """What starts its nodes; None for a single server."""


class Bursts(Recorded):
    """How bursts of requests affect the first break-even rate, simulated; rates are requests an hour."""

    kind: Literal["bursts"] = "bursts"
    cheaper_below: str
    """The trial that is cheaper below that rate."""
    cheaper_above: str
    """The trial that is cheaper above it."""
    burstiness: float
    """The squared coefficient of variation of the gaps between requests."""
    at: float
    """The rate at which callers wait so much longer."""
    longer_ms: float
    """How much longer they wait under `cheaper_below` on average, if requests come in bursts."""
    alone_ms: float
    """The same if requests are evenly spaced."""
    flip: float | None
    """The break-even rate of bursts; None if none was found."""
    alone_flip: float | None
    """The same of evenly spaced requests."""
    near: float
    """The break-even rate that the run shows."""
    widest: float
    """`flip` is looked for within this factor of `near`."""
    same: float
    """The share of a rate that does not count as a difference."""


class Card(Recorded):
    """What is recommended, and why."""

    recommended: str | None
    """The label of the trial to use, at the highest rates if there are several; None if the answer is open."""
    runner_up: str | None
    """The label of the next best trial."""
    answer: list[Finding]
    """What to use, and why."""
    notes: list[Finding]
    """What the answer depends on, and what is left out."""
    settings: list[Settings]
    """Settings to paste, for each range of rates that has a recommendation of its own."""
    settles: Settles | None
    """What would settle an open answer."""
    bursts: Bursts | None = None
    """What bursts of requests change, simulated; None if that is not known."""

    @property
    def flips(self) -> list[Flip]:
        """Where the answer changes: rates first."""
        found = [each for each in (*self.answer, *self.notes) if isinstance(each, FLIPS)]
        return sorted(found, key=lambda each: each.what != "rate")
