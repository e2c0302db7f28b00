"""What both kinds of card say, before prices and settings are added."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..quantities import duration, limit
from .amounts import listed, missing, number
from .choice import left_out
from .economics import Costs, TrialCost
from .intervals import VERDICT_ROUNDS
from .prices import HOUR
from .verdicts import milliseconds
from .worth import MATTERS, TRIFLE

PERCENTILES = ("p99", "p95", "p50")


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
        return float(self.summary["cost"].get("trifle", TRIFLE))

    def is_quicker(self, one: str, other: str) -> bool:
        """Whether the rounds show that its p50 is lower, or its mean if p50 has no verdict."""
        wanted = {(one, other): "lower", (other, one): "higher"}
        for pair in self.summary["comparisons"]:
            if verdict := wanted.get((pair["trial"], pair["against"])):
                verdicts = [pair["statistics"][name].get("verdict") for name in ("p50", "mean")]
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
    def clients(self) -> str:
        """Who sends the requests of a run in which the answers make the rate."""
        closed = (self.summary["workload"] or {}).get("closed") or {}
        clients = closed.get("clients", 1)
        who = f"{clients} clients" if clients > 1 else "one client"
        return f"{who} sending requests back to back"


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
    known = [q for q in PERCENTILES if all(latency[name][q] is not None for name in latency)]
    if not known:
        return []
    q = known[0]
    ours = latency[label][q]
    quicker = next((n for n in ranked if n != label and latency[n][q] < ours and evidence.is_quicker(n, label)), None)
    if quicker is None:
        return []
    sentence = (
        f"If {q} must be below {milliseconds(ours)}, {label} is too slow, whatever its cost; use {quicker}"
        f" ({q} {milliseconds(latency[quicker][q])})."
    )
    return [{"what": "latency target", "at": ours, "unit": f"ms ({q})", "to": quicker, "sentence": sentence}]


def longer(evidence: Evidence, slow: str, quick: str) -> str:
    """`; it costs your callers 38 ms each`, if it does; without a workload, how much longer a lone request takes."""
    means = [evidence.trial(label)["latency_ms"]["mean"] for label in (slow, quick)]
    if None in means or means[0] <= means[1]:
        return ""
    more = milliseconds(means[0] - means[1])
    if evidence.summary["workload"]:
        return f"; it costs your callers {more} each on average"
    return f"; a request that does not have to queue takes {more} longer on average"


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
    margin = f"{MATTERS:.0%} of the cost"
    if most is not None:
        margin = f"{number(max(0.0, most))} a month (the threshold, 'trifle', is {number(evidence.trifle)})"
    ours = f"{label} takes {milliseconds(means[label])} on average"
    return f"no alternative saves more than {margin}, so the fastest is recommended: {ours}{against}.{doubt}"


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
    """A sentence for each target for which it is not settled whether these meet it."""
    return [
        f"Whether {label} meets {target['percentile']} ≤ {limit(target['target_ms'] / 1e3)} is not settled."
        for label in dict.fromkeys(labels)
        for target in evidence.trial(label)["slo"]
        if target["verdict"] != "met"
    ]


def back_to_back(evidence: Evidence) -> list[str]:
    """How the CPU time was measured, if it has a price, of a run in which the answers make the rate."""
    if not evidence.costs.prices.cpu_hour:
        return []
    return ["CPU time was measured with back-to-back requests; with pauses in between, a request usually takes more."]


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
