"""What both kinds of card say, before prices and settings are added."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..config.quantities import duration, limit
from ..costs.economics import Costs, TrialCost
from ..costs.prices import HOUR
from ..costs.worth import MATTERS
from ..report.format import (
    listed,
    milliseconds,
    missing,
    number,
    rate,
)
from ..stats.intervals import VERDICT_ROUNDS
from .choice import left_out

PERCENTILES = ("p99", "p50")  # of which the rounds give verdicts


@dataclass
class Advice:
    """What a card recommends; `recommended` and `runner_up` are labels, and `settles` says what would decide what the
    rounds leave open.
    """

    recommended: str | None = None
    """The trial for the highest rates, if `sides` has several."""
    runner_up: str | None = None
    answer: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    flips: list[dict[str, Any]] = field(default_factory=list)
    settles: str | None = None
    sides: list[tuple[str, str]] = field(default_factory=list)
    """Labels, and in words the rates for which each is recommended."""
    order: tuple[str, ...] = ()
    """Labels that distinguish this answer from another one."""

    @property
    def headline(self) -> str:
        """What is recommended, and for which rates."""
        sides = "; ".join(f"{label}, {where}" if where else label for label, where in self.sides)
        runner_up = f"; the runner-up is {self.runner_up}" if self.runner_up and len(self.sides) == 1 else ""
        return f"Recommended: {sides}{runner_up}."


@dataclass(frozen=True)
class Evidence:
    """What advice is derived from."""

    summary: Mapping[str, Any]
    costs: Costs
    pairs: Sequence[Mapping[str, Any]]

    def trial(self, label: str) -> Mapping[str, Any]:
        """The trial of that label in the summary."""
        return next(dict(trial) for trial in self.summary["trials"] if trial["label"] == label)

    def cost(self, label: str) -> TrialCost:
        return next(trial for trial in self.costs.trials if trial.label == label)

    def pair(self, one: str, other: str) -> Mapping[str, Any]:
        return next(pair for pair in self.pairs if {pair["trial"], pair["against"]} == {one, other})

    @property
    def rate(self) -> float | None:
        """The rate, in requests an hour, for which to advise, of a run whose traffic has no rate of its own."""
        per_second = self.summary.get("rate")
        return None if per_second is None else float(per_second) * HOUR

    @property
    def trifle(self) -> float:
        """Money a month; a smaller saving decides nothing."""
        return float(self.summary["cost"]["trifle"])

    def is_quicker(self, one: str, other: str, names: Sequence[str] = ("p50", "mean")) -> bool:
        """Whether the rounds show that `one` has the lower latency, by the first of these statistics with a verdict."""
        wanted = {(one, other): "lower", (other, one): "higher"}
        for pair in self.summary["comparisons"]:
            if verdict := wanted.get((pair["trial"], pair["against"])):
                verdicts = [pair["statistics"][name].get("verdict") for name in names]
                return next((each for each in verdicts if each is not None), None) == verdict
        return False

    @property
    def eligible(self) -> list[TrialCost]:
        """The trials that are priced, without errors, and not known to miss a target."""
        return [trial for trial in self.costs.trials if not left_out(self.trial(trial.label))]

    @property
    def excluded(self) -> list[str]:
        """A sentence for each of the others."""
        reasons = {trial["label"]: left_out(trial) for trial in self.summary["trials"]}
        sentences = [f"{label} is left out: it {why}." for label, why in reasons.items() if why]
        return sentences + [f"{label} cannot be priced: {why}." for label, why in self.costs.unpriced.items()]

    @property
    def clients(self) -> int:
        """Clients of a closed loop; 0 under a workload that has a rate of its own."""
        workload = self.summary["workload"]
        closed = {} if workload is None else workload.get("closed")
        return 0 if closed is None else int(closed.get("clients", 1))

    @property
    def senders(self) -> str:
        """Who sends the requests of a closed loop."""
        return f"{f'{self.clients} clients' if self.clients > 1 else 'one client'} sending requests back to back"

    def most(self, trial: TrialCost) -> str:
        """The most requests that a trial can answer, as far as that is known, and why."""
        if trial.size is not None and trial.is_limited_by_size:
            return f"the {number(trial.size.cpu)} cores of its size have time for {rate(trial.capacity or 0.0)}"
        return f"it answered at most {rate(trial.capacity or 0.0)} for {self.senders}"


def rounds_lacking(rounds: int, due: int) -> str | None:
    """What would decide it if fewer than 5 of the `due` rounds were finished; None if there are enough."""
    if rounds >= VERDICT_ROUNDS:
        return None
    lacking = VERDICT_ROUNDS - rounds
    repeats = VERDICT_ROUNDS if due < VERDICT_ROUNDS else due + lacking
    return (
        f"A recommendation needs {VERDICT_ROUNDS} rounds finished by every trial; {missing(lacking)}"
        f" (set repeats: {repeats})."
    )


def latency_flip(evidence: Evidence, label: str, ranked: Sequence[str]) -> list[dict[str, Any]]:
    """The latency target from which on `label` is too slow, if another one is faster; `ranked` are the labels, the
    cheapest first.
    """
    latency = {name: evidence.trial(name)["latency_ms"] for name in {label, *ranked}}
    for q in PERCENTILES:
        ours = latency[label][q]
        quicker = next((name for name in ranked if name != label and evidence.is_quicker(name, label, (q,))), None)
        if ours is None or quicker is None:
            continue
        of = f" of {evidence.senders}" if evidence.clients > 1 else ""
        sentence = (
            f"If {q}{of} must be below {milliseconds(ours)}, {label} is too slow, whatever its cost; use {quicker}"
            f" ({q} {milliseconds(latency[quicker][q])})."
        )
        return [{"what": "latency target", "at": ours, "unit": f"ms ({q})", "to": quicker, "sentence": sentence}]
    return []


def longer(evidence: Evidence, slow: str, quick: str) -> str:
    """`; it costs your callers 38 ms each`, if the rounds show that it is slower; in a closed loop, for whom."""
    means = [evidence.trial(label)["latency_ms"]["mean"] for label in (slow, quick)]
    if None in means or means[0] <= means[1] or not evidence.is_quicker(quick, slow):
        return ""
    more = milliseconds(means[0] - means[1])
    if evidence.clients == 1:
        return f"; a request that does not have to queue takes {more} longer on average"
    if evidence.clients:
        return f"; for {evidence.senders}, a request takes {more} longer on average"
    return f"; it costs your callers {more} each on average"


def fastest(evidence: Evidence, labels: Sequence[str], preferred: str | None = None) -> str:
    """The trial with the lowest mean latency; of those that the rounds do not show to be slower, the `preferred` one,
    or else the one with the fewest options, and of these the first of the file.
    """
    least = min(labels, key=lambda label: evidence.trial(label)["latency_ms"]["mean"])
    alike = [trial["label"] for trial in evidence.summary["trials"] if trial["label"] in labels]
    alike = [label for label in alike if not evidence.is_quicker(least, label)]
    if preferred in alike:
        return str(preferred)
    return str(min(alike, key=lambda label: len(evidence.trial(label)["options"])))


def why_the_fastest(evidence: Evidence, label: str, others: Sequence[str], most: float | None) -> str:
    """Why `label` is recommended of those that cost the same: the others save at most `most` a month; None if they
    cost the same in proportion.
    """
    means = {each: evidence.trial(each)["latency_ms"]["mean"] for each in (label, *others)}
    slower = [each for each in others if evidence.is_quicker(label, each)]
    figures = [f"{milliseconds(means[each])} under {each}" for each in slower]
    against = f", against {listed(figures)}" if figures else ""
    alike = [each for each in others if each not in slower]
    doubt = ""
    if alike:
        options = {each: len(evidence.trial(each)["options"]) for each in (label, *alike)}
        fewer = "; it has fewer options" if options[label] < min(options[each] for each in alike) else ""
        figures = [f"{each} ({milliseconds(means[each])})" for each in alike]
        doubt = f" The rounds do not show it to be faster than {listed(figures)}{fewer}."
    margin = f"more than {MATTERS:.0%} of the cost"
    if most is not None and most > 0:
        margin = f"more than {number(most)} a month (the threshold, 'trifle', is {number(evidence.trifle)})"
    elif most is not None:
        margin = "anything"
    ours = f"{label} takes {milliseconds(means[label])} on average"
    return f"no alternative saves {margin}, so the fastest is recommended: {ours}{against}.{doubt}"


def simplest(evidence: Evidence, label: str) -> str | None:
    """The trial that keeps its models: under it no request waited for a load, and none expires. It has the loader of
    `label` if there is such a one; None if `label` keeps its models itself, or no trial does.
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
    """A sentence for each target: how far it is known that these meet it."""
    sentences = []
    for label in dict.fromkeys(labels):
        for target in evidence.trial(label)["slo"]:
            name, rounds = f"{target['percentile']} ≤ {limit(target['target_ms'] / 1e3)}", target["rounds"]
            if target["verdict"] == "met":
                least = f"at least {target['processes_least']:.0%} of all such processes do"
                sentences.append(f"All {rounds} server processes of {label} met {name}, so {least}.")
            else:
                sentences.append(f"Whether {label} meets {name} is not settled.")
    return sentences


def back_to_back(evidence: Evidence) -> list[str]:
    """Whose CPU time and waiting the costs of a closed loop are, if these have a price."""
    prices, sentences = evidence.costs.prices, []
    if prices.cpu_hour:
        sentences.append(
            "CPU time was measured with back-to-back requests; with pauses in between, a request usually takes more."
        )
    if prices.latency_hour and evidence.clients > 1:
        sentences.append(f"The waiting that is paid for is that of {evidence.senders}; fewer clients wait less.")
    return sentences


def gaps(evidence: Evidence) -> list[str]:
    """Sentences on trials whose models expire."""
    sentences = []
    for trial in evidence.eligible:
        if not trial.is_line:
            sentences.append(
                f"{trial.label} is not compared: its models expire, so its cost depends on the gaps between"
                " requests. Give the experiment a 'workload'."
            )
        elif trial.least_keep is not None:
            least = duration(trial.least_keep)
            sentences.append(
                f"The cost of {trial.label} is valid only if every gap between requests is shorter than {least}."
            )
    return sentences
