"""What a card says, before prices and settings are added; and the flip that both kinds of card have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .choice import left_out
from .economics import Costs, TrialCost
from .intervals import VERDICT_ROUNDS
from .verdicts import milliseconds

PERCENTILES = ("p99", "p95", "p50")


@dataclass
class Advice:
    """`recommended` and `runner_up` are labels; `settles` says what would tell, where the rounds cannot."""

    recommended: str | None = None
    runner_up: str | None = None
    answer: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    flips: list[dict[str, Any]] = field(default_factory=list)
    settles: str | None = None
    where: str = ""
    """From which rate on it is recommended, where none is stated."""
    order: tuple[str, ...] = ()
    """Labels that tell this answer from another one."""


@dataclass(frozen=True)
class Evidence:
    """What advice is made from."""

    summary: Mapping[str, Any]
    costs: Costs
    pairs: Sequence[Mapping[str, Any]]

    def trial(self, label: str) -> Mapping[str, Any]:
        """Of the summary."""
        return next(dict(trial) for trial in self.summary["trials"] if trial["label"] == label)

    def cost(self, label: str) -> TrialCost:
        return next(trial for trial in self.costs.trials if trial.label == label)

    def pair(self, one: str, other: str) -> Mapping[str, Any]:
        return next(pair for pair in self.pairs if {pair["trial"], pair["against"]} == {one, other})

    def is_quicker(self, one: str, other: str) -> bool:
        """Whether the rounds separate their p50."""
        wanted = {(one, other): "lower", (other, one): "higher"}
        return any(
            pair["statistics"]["p50"].get("verdict") == verdict
            for pair in self.summary["comparisons"]
            if (verdict := wanted.get((pair["trial"], pair["against"])))
        )

    @property
    def eligible(self) -> list[TrialCost]:
        """Priced, without errors, and not known to miss a target."""
        return [trial for trial in self.costs.trials if not left_out(self.trial(trial.label))]

    @property
    def excluded(self) -> list[str]:
        """A sentence for each of the others."""
        reasons = {trial["label"]: left_out(trial) for trial in self.summary["trials"]}
        sentences = [f"{label} is left out: it {why}." for label, why in reasons.items() if why]
        return sentences + [f"{label} cannot be priced: {why}." for label, why in self.costs.unpriced.items()]


def rounds_lacking(rounds: int, due: int) -> str | None:
    """What would settle it where there are too few of those that were due."""
    if rounds >= VERDICT_ROUNDS:
        return None
    lacking = VERDICT_ROUNDS - rounds
    repeats = VERDICT_ROUNDS if due < VERDICT_ROUNDS else due + lacking
    return (
        f"These are figures; a recommendation takes {VERDICT_ROUNDS} rounds that every trial finished, {lacking} more"
        f" than there are (repeats: {repeats})."
    )


def latency_flip(evidence: Evidence, label: str, ranked: Sequence[str]) -> list[dict[str, Any]]:
    """The latency target from which on `label` will not do, where another one is quicker; `ranked` are the labels,
    the cheapest first.
    """
    latency = {name: evidence.trial(name)["latency_ms"] for name in {label, *ranked}}
    known = [q for q in PERCENTILES if all(latency[name][q] is not None for name in latency)]
    if not known:
        return []
    q = known[0]
    ours = latency[label][q]
    quicker = next((n for n in ranked if n != label and latency[n][q] < ours and evidence.is_quicker(n, label)), None)
    if quicker is None:
        return []
    sentence = (
        f"Where {q} must be below {milliseconds(ours)}, {label} will not do, whatever it costs: take {quicker}"
        f" ({q} {milliseconds(latency[quicker][q])})."
    )
    return [{"what": "latency target", "at": ours, "unit": f"ms ({q})", "to": quicker, "sentence": sentence}]


def longer(evidence: Evidence, slow: str, quick: str) -> str:
    """`; it costs your callers 38 ms each`, where that is so."""
    means = [evidence.trial(label)["latency_ms"]["mean"] for label in (slow, quick)]
    if None in means or means[0] <= means[1]:
        return ""
    return f"; it costs your callers {milliseconds(means[0] - means[1])} each"
