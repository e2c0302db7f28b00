"""What a card says, before prices and settings are added; and the flip that both kinds of card have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..quantities import duration, limit
from .amounts import listed, number, rate
from .choice import left_out
from .economics import Costs, TrialCost
from .intervals import VERDICT_ROUNDS
from .prices import HOUR
from .verdicts import milliseconds
from .worth import MATTERS, TRIFLE

PERCENTILES = ("p99", "p50")  # of which the rounds give verdicts


@dataclass
class Advice:
    """`recommended` and `runner_up` are labels; `settles` says what would tell, where the rounds cannot."""

    recommended: str | None = None
    """At the highest rates, where `sides` has several."""
    runner_up: str | None = None
    answer: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    flips: list[dict[str, Any]] = field(default_factory=list)
    settles: str | None = None
    sides: list[tuple[str, str]] = field(default_factory=list)
    """Labels, and the rates in words for which each is recommended."""
    order: tuple[str, ...] = ()
    """Labels that tell this answer from another one."""

    @property
    def headline(self) -> str:
        """What is recommended, and where."""
        sides = "; ".join(f"{label}, {where}" if where else label for label, where in self.sides)
        runner_up = f"; the runner-up is {self.runner_up}" if self.runner_up and len(self.sides) == 1 else ""
        return f"Recommended: {sides}{runner_up}."


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

    @property
    def rate(self) -> float | None:
        """Requests an hour for which to advise, of a run whose traffic has no rate of its own."""
        per_second = self.summary.get("rate")
        return None if per_second is None else float(per_second) * HOUR

    @property
    def trifle(self) -> float:
        """What is not worth deciding, a month."""
        return float(self.summary["cost"].get("trifle", TRIFLE))

    def is_quicker(self, one: str, other: str, names: Sequence[str] = ("p50", "mean")) -> bool:
        """Whether the rounds tell that `one` has the lower latency, by the first of these statistics with a verdict."""
        wanted = {(one, other): "lower", (other, one): "higher"}
        for pair in self.summary["comparisons"]:
            if verdict := wanted.get((pair["trial"], pair["against"])):
                told = [pair["statistics"][name].get("verdict") for name in names]
                return next((each for each in told if each is not None), None) == verdict
        return False

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

    @property
    def clients(self) -> int:
        """Clients of a closed loop; 0 of a workload that has a rate of its own."""
        workload = self.summary["workload"]
        closed = {} if workload is None else workload.get("closed")
        return 0 if closed is None else int(closed.get("clients", 1))

    def most(self, trial: TrialCost) -> str:
        """How many requests a trial can answer, as far as that is known."""
        if trial.size is not None and trial.is_limited_by_size:
            return f"the {number(trial.size.cpu)} cores of its size have time for {rate(trial.capacity or 0.0)}"
        return f"it answered at most {rate(trial.capacity or 0.0)}, to {self.who_asks}"

    @property
    def who_asks(self) -> str:
        """Of a run in which answers make the rate."""
        many = f"{self.clients} clients that send requests back to back"
        return many if self.clients > 1 else "one client that sends requests back to back"


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
    for q in PERCENTILES:
        ours = latency[label][q]
        quicker = next((name for name in ranked if name != label and evidence.is_quicker(name, label, (q,))), None)
        if ours is None or quicker is None:
            continue
        whose = f", of {evidence.who_asks}," if evidence.clients else ""
        sentence = (
            f"If {q}{whose} must be below {milliseconds(ours)}, {label} is too slow, whatever it costs; use {quicker}"
            f" ({q} {milliseconds(latency[quicker][q])})."
        )
        return [{"what": "latency target", "at": ours, "unit": f"ms ({q})", "to": quicker, "sentence": sentence}]
    return []


def longer(evidence: Evidence, slow: str, quick: str) -> str:
    """`; it costs your callers 38 ms each`, if the rounds tell that it is slower; of a closed loop, for whom."""
    means = [evidence.trial(label)["latency_ms"]["mean"] for label in (slow, quick)]
    if None in means or means[0] <= means[1] or not evidence.is_quicker(quick, slow):
        return ""
    more = milliseconds(means[0] - means[1])
    if evidence.clients == 1:
        return f"; a request that does not have to queue takes {more} longer on average"
    if evidence.clients:
        return f"; with {evidence.who_asks}, each waits {more} longer on average"
    return f"; it costs your callers {more} each on average"


def fastest(evidence: Evidence, labels: Sequence[str], preferred: str | None = None) -> str:
    """The one of the least mean latency; of those that the rounds do not tell to be slower, the `preferred` one, or
    else the simplest: of the fewest options, the first of the file.
    """
    least = min(labels, key=lambda label: evidence.trial(label)["latency_ms"]["mean"])
    alike = [trial["label"] for trial in evidence.summary["trials"] if trial["label"] in labels]
    alike = [label for label in alike if not evidence.is_quicker(least, label)]
    if preferred in alike:
        return str(preferred)
    return str(min(alike, key=lambda label: len(evidence.trial(label)["options"])))


def why_the_fastest(evidence: Evidence, label: str, others: Sequence[str], most: float | None) -> str:
    """Why `label` is recommended of those that cost the same: the others save `most` a month, which is a trifle; None
    where they cost the same in proportion.
    """
    means = {each: evidence.trial(each)["latency_ms"]["mean"] for each in (label, *others)}
    slower = [each for each in others if evidence.is_quicker(label, each)]
    figures = [f"{milliseconds(means[each])} under {each}" for each in slower]
    against = f", against {listed(figures)}" if figures else ""
    alike = [f"{each} ({milliseconds(means[each])})" for each in others if each not in slower]
    doubt = f"; the rounds do not tell it from {listed(alike)}" if alike else ""
    margin = f"more than {MATTERS:.0%} of the cost"
    if most is not None and most > 0:
        margin = f"more than {number(most)} a month, and less than {number(evidence.trifle)} is not worth deciding"
    elif most is not None:
        margin = "anything"
    ours = f"{label} takes {milliseconds(means[label])} on average"
    return f"no other saves {margin}, so the fastest is recommended: {ours}{against}{doubt}."


def simplest(evidence: Evidence, label: str) -> str | None:
    """The trial that keeps its models: under it no request waited for a load, and none expires. It has the loader of
    `label` if there is such a one; None where `label` keeps its models itself, or none does.
    """
    kept = [
        trial.label
        for trial in evidence.eligible
        if trial.least_keep is None and evidence.trial(trial.label)["cold"]["share"] == 0
    ]
    if label in kept:
        return None
    loaders = {each: [evidence.trial(each)[key] for key in ("loader", "loader_options")] for each in {label, *kept}}
    return min(kept, key=lambda each: loaders[each] != loaders[label], default=None)


def doubts(evidence: Evidence, labels: Iterable[str]) -> list[str]:
    """A sentence for each target, of how far it is known that these meet it."""
    told = []
    for label in dict.fromkeys(labels):
        for target in evidence.trial(label)["slo"]:
            name, rounds = f"{target['percentile']} ≤ {limit(target['target_ms'] / 1e3)}", target["rounds"]
            if target["verdict"] == "met":
                least = f"at least {target['processes_least']:.0%} of all such processes do"
                told.append(f"All {rounds} server processes of {label} met {name}, so that {least}.")
            else:
                told.append(f"Whether {label} meets {name} is not settled.")
    return told


def back_to_back(evidence: Evidence) -> list[str]:
    """Of a run in which answers make the rate: whose CPU time and waiting it is, where they have a price."""
    prices, told = evidence.costs.prices, []
    if prices.cpu_hour:
        told.append("CPU time was measured with back-to-back requests; with pauses, a request usually takes more.")
    if prices.latency_hour and evidence.clients > 1:
        told.append(f"The waiting that is paid for is that of {evidence.who_asks}; fewer callers wait less.")
    return told


def gaps(evidence: Evidence) -> list[str]:
    """What there is to say of trials whose models expire."""
    sentences = []
    for trial in evidence.eligible:
        if not trial.is_line:
            sentences.append(
                f"{trial.label} is not compared: its models expire, so what it costs depends on the gaps between"
                " requests. Give the experiment a 'workload'."
            )
        elif trial.least_keep is not None:
            least = duration(trial.least_keep)
            sentences.append(f"What {trial.label} costs holds while no gap between requests is as long as {least}.")
    return sentences
