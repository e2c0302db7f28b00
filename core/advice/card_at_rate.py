"""The card of a run for one rate, its workload's or a stated one: the cheapest trial, and what would change that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..costs.break_even import SAME_MIB
from ..costs.economics import MILLION, RoundCost, TrialCost
from ..costs.memory_price import Bill, memory_price_flips
from ..costs.prices import MIB_PER_GIB
from ..costs.worth import (
    MONTH,
    Saving,
    differences,
    monthly,
    rounds_to_settle,
    saving,
)
from ..report.format import (
    between,
    listed,
    number,
    rate,
)
from .advice import (
    Advice,
    Evidence,
    back_to_back,
    doubts,
    fastest,
    gaps,
    latency_flip,
    longer,
    rounds_lacking,
    simplest,
    why_the_fastest,
)
from .choice import cheapest_by_rate, contenders, is_told

Savings = Mapping[str, Saving]
"""What the cheapest trial saves against each of the others, by label."""


@dataclass(frozen=True)
class Traffic:
    """The rate for which to advise."""

    per_hour: float
    is_stated: bool
    """Whether costs are computed for that rate; else they were measured under it."""

    def hourly(self, each: RoundCost) -> float:
        """What that server process costs, money per hour."""
        return each.holding + each.per_request * self.per_hour if self.is_stated else each.per_answer * self.per_hour

    def gib_hours(self, each: RoundCost) -> float:
        """GiB-hours for each answer: of the memory that is always held, and of what is held because of the answer."""
        if not self.is_stated:
            return each.gib_hours
        always, besides = each.charged_mib / self.per_hour, (each.average_mib - each.charged_mib) / each.rate
        return (always + besides) / MIB_PER_GIB

    def month(self, trial: TrialCost) -> float:
        return monthly(trial, self.hourly)

    def million(self, a_month: float) -> float:
        """So much money a month, converted to money for a million answers."""
        return a_month / MONTH / self.per_hour * MILLION

    def costs(self, trials: Sequence[TrialCost]) -> list[str]:
        """What a million answers cost under each of these."""
        return [number(self.million(self.month(trial))) for trial in trials]

    def __str__(self) -> str:
        return f"At {rate(self.per_hour)}{'' if self.is_stated else ', as in this run'}"


def advise_at_rate(evidence: Evidence) -> Advice:
    """Recommends what is cheapest at that rate, of those that are not known to miss the targets."""
    advice, stated = Advice(notes=evidence.excluded), evidence.rate
    able = evidence.eligible if stated is None else _able(evidence, stated, advice)
    if not able:
        advice.answer = ["There is nothing to recommend."]
        return advice
    per_hour = stated or min(able, key=lambda trial: trial.typical("per_answer")).typical("rate")
    traffic = Traffic(per_hour, stated is not None)
    best, *others = ranked = sorted(able, key=traffic.month)
    lacking = rounds_lacking(len(_rounds_of_all(ranked)), evidence.summary["rounds_due"])
    advice.recommended, advice.runner_up = best.label, others[0].label if others else None
    if not others:
        advice.answer = [f"There is no other eligible trial to compare {best.label} with."]
    elif lacking:
        ours, theirs = traffic.costs([best, others[0]])
        costs = f"a million requests cost {ours} under {best.label} and {theirs} under {others[0].label}"
        advice.answer = [f"{traffic}, {costs}, by these measurements; that is not a verdict."]
    else:
        _compare(evidence, traffic, best, others, advice)
    advice.settles = lacking or advice.settles
    if advice.settles:
        advice.recommended = None
    advice.order = (advice.recommended or best.label,)
    if advice.recommended:
        advice.sides = [(advice.recommended, f"at {rate(per_hour)}" if traffic.is_stated else "")]
        advice.answer += doubts(evidence, [advice.recommended])
    _add_flips(evidence, traffic, ranked, advice, is_figure=bool(lacking))
    return advice


def _able(evidence: Evidence, per_hour: float, advice: Advice) -> list[TrialCost]:
    """Those whose cost at that rate is known, and that answered as many requests."""
    lines = [trial for trial in evidence.eligible if trial.is_line]
    slow = [trial for trial in lines if trial.capacity is not None and trial.capacity < per_hour]
    advice.notes += [f"{trial.label} is left out: {evidence.most(trial)}." for trial in slow]
    advice.notes += [*gaps(evidence), *back_to_back(evidence)]
    return [trial for trial in lines if trial not in slow]


def _rounds_of_all(trials: Sequence[TrialCost]) -> set[int]:
    return set.intersection(*(set(trial.rounds) for trial in trials))


def _compare(
    evidence: Evidence, traffic: Traffic, best: TrialCost, others: Sequence[TrialCost], advice: Advice
) -> None:
    """Say what the cheapest saves against each of the others, as far as that is known."""
    found = {other.label: saving(best, other, traffic.hourly) for other in others}
    unknown = [other for other in others if not found[other.label].is_settled(evidence.trifle)]
    ties = [other for other in others if found[other.label].is_tie(evidence.trifle)]
    dearer = [other for other in others if other not in ties]
    # One that costs more than what is no tie is no choice, though it costs about as much as the cheapest.
    ties = [tie for tie in ties if all(saving(tie, each, traffic.hourly).typical >= 0 for each in dearer)]
    if unknown:
        advice.answer = [_unknown(traffic, best, unknown, found)]
        advice.settles = rounds_to_settle(differences(best, unknown[0], traffic.hourly))
        return
    if ties:
        tied = [best.label, *(each.label for each in ties)]
        advice.recommended = chosen = fastest(evidence, tied)
        same = [label for label in tied if label != chosen]
        trifle = all(found[each.label].is_trifle(evidence.trifle) for each in ties)
        most = max(found[each.label].high for each in ties) if trifle else None
        advice.answer = [f"{traffic}, {why_the_fastest(evidence, chosen, same, most)}"]
        advice.runner_up = same[0]
    else:
        second = dearer[0]
        low, high = (number(traffic.million(bound)) for bound in found[second.label][1:3])
        within = f"(95 % interval of the difference {low} to {high})"
        costs_callers = longer(evidence, best.label, second.label)
        advice.answer = [f"{_cheapest(traffic, best, second)} {within}{costs_callers}."]
    advice.answer += _saves(evidence, traffic, str(advice.recommended), dearer)


def _cheapest(traffic: Traffic, best: TrialCost, second: TrialCost) -> str:
    costs = " against ".join(traffic.costs([best, second]))
    return f"{traffic}, {best.label} is the cheapest, ahead of {second.label}: {costs} for a million requests"


def _unknown(traffic: Traffic, best: TrialCost, unknown: Sequence[TrialCost], found: Savings) -> str:
    """That it is not settled whether one of several is cheaper."""
    figures = []
    for other, cost in zip(unknown, traffic.costs(unknown), strict=True):
        low, high = (number(traffic.million(bound)) for bound in found[other.label][1:3])
        figures.append(f"{cost} under {other.label} (95 % interval of the difference {low} to {high})")
    return (
        f"{traffic}, it is not settled whether {best.label} costs less than {listed([each.label for each in unknown])}:"
        f" {traffic.costs([best])[0]} for a million requests against {listed(figures)}."
    )


def _saves(evidence: Evidence, traffic: Traffic, label: str, dearer: Sequence[TrialCost]) -> list[str]:
    """What it saves in a month, against the next one and against the trial that keeps its models."""
    simple = simplest(evidence, label)
    against = [other for i, other in enumerate(dearer) if i == 0 or other.label == simple]
    found = []
    for other in against:
        amount = number(saving(evidence.cost(label), other, traffic.hourly).typical)
        keeps = ", which keeps its models" if other.label == simple else ""
        found.append(f"{amount} a month compared with {other.label}{keeps}")
    return [f"{label} saves {listed(found)}."] if found else []


def _add_flips(
    evidence: Evidence, traffic: Traffic, ranked: Sequence[TrialCost], advice: Advice, *, is_figure: bool
) -> None:
    """What changes the answer: the rate, the price of memory, a latency target."""
    best = ranked[0]
    label = advice.recommended or best.label
    advice.flips = [] if is_figure else [*_rates(evidence, best, ranked, traffic.per_hour)]
    if label == best.label and evidence.costs.prices.billing != "size" and not is_figure:
        advice.flips += _memory_prices(evidence, traffic, ranked)
    advice.flips += latency_flip(evidence, label, [trial.label for trial in ranked if trial.label != label])
    advice.notes[:0] = [flip["sentence"] for flip in advice.flips]
    if not best.is_line:
        why = "its models expire in the gaps between requests, and other rates have other gaps"
        advice.notes.append(f"It is unknown at which other rates {best.label} stops being the cheapest: {why}.")


def _rates(evidence: Evidence, best: TrialCost, ranked: Sequence[TrialCost], at: float) -> Iterator[dict[str, Any]]:
    """The rates below and above which another one would be cheaper, if each cost the same at other rates."""
    if not best.is_line:
        return
    lines = contenders([trial for trial in ranked if trial.is_line], evidence.pairs).trials
    segments = cheapest_by_rate(lines if best in lines else [best, *lines], evidence.pairs)
    here = next((i for i, segment in enumerate(segments) if segment.start <= at < segment.end), None)
    if here is None or segments[here].label != best.label:
        return
    for i, edge, side in ((here - 1, segments[here].start, "Below"), (here + 1, segments[here].end, "Above")):
        if 0 <= i < len(segments):
            to = segments[i].label
            pair = evidence.pair(best.label, to)
            sentence = f"{side} {rate(edge)}{between(pair['ci95'])} {to} would be cheaper than {best.label}."
            if edge != best.capacity and not is_told(pair):
                continue
            if edge == best.capacity:
                sentence = f"Above {rate(edge)}, use {to} instead of {best.label}: {evidence.most(best)}."
            yield {"what": "rate", "at": edge, "unit": "requests/hour", "to": to, "sentence": sentence}


def _memory_prices(evidence: Evidence, traffic: Traffic, ranked: Sequence[TrialCost]) -> Iterator[dict[str, Any]]:
    """The prices of a GiB-hour below and above which another one would be cheaper at this rate."""
    best, *others = ranked
    price = evidence.costs.prices.memory_gib_hour
    differ = [o for o in others if abs(best.typical("average_mib") - o.typical("average_mib")) >= SAME_MIB]
    bills = [_bill(traffic, each, price) for each in (best, *differ)]
    return memory_price_flips(bills[0], bills[1:], price)


def _bill(traffic: Traffic, trial: TrialCost, price: float) -> Bill:
    """What one answer costs, as a function of the price of memory."""
    gib_hours = {n: traffic.gib_hours(each) for n, each in trial.rounds.items()}
    rest = {n: traffic.hourly(each) / traffic.per_hour - gib_hours[n] * price for n, each in trial.rounds.items()}
    return Bill(trial.label, gib_hours, rest)
