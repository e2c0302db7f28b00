"""The card of a run for one rate, its workload's or a stated one: the cheapest trial, and what would change that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ..costs.break_even import SAME_MIB
from ..costs.economics import MILLION, RoundCost, TrialCost
from ..costs.memory_price import Bill, memory_price_flips
from ..costs.prices import MIB_PER_GIB
from ..costs.worth import MONTH, Saving, differences, monthly, rounds_to_settle, saving
from ..results.answers import (
    CheapestAtRate,
    CheapestNotSettled,
    MeasuredCosts,
    MillionCost,
    MonthlySaving,
    NoAlternative,
    NothingEligible,
    PerhapsCheaper,
    SavingsAtRate,
)
from ..results.figures import Interval
from ..results.flips import CapacityReachedFlip, MemoryPriceFlip, OtherRateFlip, RateFlip, Rates
from ..results.notes import CheapestElsewhereUnknown, Finding, LeftOutForCapacity
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

    def million_cost(self, trial: TrialCost) -> MillionCost:
        return MillionCost(label=trial.label, million=self.million(self.month(trial)))

    def interval(self, found: Saving) -> Interval:
        """That of a saving, for a million answers."""
        return self.million(found.low), self.million(found.high)

    @property
    def rates(self) -> Rates:
        return Rates(start=self.per_hour, end=self.per_hour, as_measured=not self.is_stated)


def advise_at_rate(evidence: Evidence) -> Advice:
    """Recommends what is cheapest at that rate, of those that are not known to miss the targets."""
    advice, stated = Advice(notes=evidence.excluded), evidence.rate
    able = evidence.eligible if stated is None else _able(evidence, stated, advice)
    if not able:
        advice.answer = [NothingEligible()]
        return advice
    per_hour = stated or min(able, key=lambda trial: trial.typical("per_answer")).typical("rate")
    traffic = Traffic(per_hour, stated is not None)
    best, *others = ranked = sorted(able, key=traffic.month)
    lacking = rounds_lacking(len(_rounds_of_all(ranked)), evidence.measured.rounds_due)
    advice.recommended, advice.runner_up = best.label, others[0].label if others else None
    if not others:
        advice.answer = [NoAlternative(label=best.label)]
    elif lacking:
        first, second = map(traffic.million_cost, (best, others[0]))
        advice.answer = [MeasuredCosts(rates=traffic.rates, first=first, second=second)]
    else:
        _compare(evidence, traffic, best, others, advice)
    advice.settles = lacking or advice.settles
    if advice.settles:
        advice.recommended = None
    advice.order = (advice.recommended or best.label,)
    if advice.recommended:
        advice.sides = [(advice.recommended, traffic.rates if traffic.is_stated else None)]
        advice.answer += doubts(evidence, [advice.recommended])
    _add_flips(evidence, traffic, ranked, advice, is_figure=bool(lacking))
    return advice


def _able(evidence: Evidence, per_hour: float, advice: Advice) -> list[TrialCost]:
    """Those whose cost at that rate is known, and that answered as many requests."""
    lines = [trial for trial in evidence.eligible if trial.is_line]
    slow = [trial for trial in lines if trial.capacity is not None and trial.capacity < per_hour]
    advice.notes += [LeftOutForCapacity(label=each.label, capacity=evidence.capacity(each)) for each in slow]
    advice.notes += [*gaps(evidence), *back_to_back(evidence)]
    return [trial for trial in lines if trial not in slow]


def _rounds_of_all(trials: Sequence[TrialCost]) -> set[int]:
    return set.intersection(*(set(trial.rounds) for trial in trials))


def _compare(
    evidence: Evidence, traffic: Traffic, best: TrialCost, others: Sequence[TrialCost], advice: Advice
) -> None:
    """Find what the cheapest saves against each of the others, as far as that is known."""
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
        advice.answer = [why_the_fastest(evidence, chosen, same, traffic.rates, most)]
        advice.runner_up = same[0]
    else:
        advice.answer = [_cheapest(evidence, traffic, best, dearer[0], found)]
    advice.answer += _saves(evidence, traffic, str(advice.recommended), dearer)


def _cheapest(
    evidence: Evidence, traffic: Traffic, best: TrialCost, second: TrialCost, found: Savings
) -> CheapestAtRate:
    return CheapestAtRate(
        rates=traffic.rates,
        first=traffic.million_cost(best),
        second=traffic.million_cost(second),
        ci95=traffic.interval(found[second.label]),
        longer=longer(evidence, best.label, second.label),
    )


def _unknown(traffic: Traffic, best: TrialCost, unknown: Sequence[TrialCost], found: Savings) -> CheapestNotSettled:
    """That it is not settled whether one of several is cheaper."""
    others = []
    for other in unknown:
        cost, bounds = traffic.million_cost(other), traffic.interval(found[other.label])
        others.append(PerhapsCheaper(label=cost.label, million=cost.million, ci95=bounds))
    return CheapestNotSettled(rates=traffic.rates, first=traffic.million_cost(best), others=others)


def _saves(evidence: Evidence, traffic: Traffic, label: str, dearer: Sequence[TrialCost]) -> list[Finding]:
    """What it saves in a month, against the next one and against the trial that keeps its models."""
    simple = simplest(evidence, label)
    against = [other for i, other in enumerate(dearer) if i == 0 or other.label == simple]
    found = []
    for other in against:
        amount = saving(evidence.cost(label), other, traffic.hourly).typical
        found.append(MonthlySaving(against=other.label, saves=amount, keeps_models=other.label == simple))
    return [SavingsAtRate(label=label, savings=found)] if found else []


def _add_flips(
    evidence: Evidence, traffic: Traffic, ranked: Sequence[TrialCost], advice: Advice, *, is_figure: bool
) -> None:
    """What changes the answer: the rate, the price of memory, a latency target."""
    best = ranked[0]
    label = advice.recommended or best.label
    flips: list[Finding] = [] if is_figure else [*_rates(evidence, best, ranked, traffic.per_hour)]
    if label == best.label and evidence.costs.prices.billing != "size" and not is_figure:
        flips += _memory_prices(evidence, traffic, ranked)
    flips += latency_flip(evidence, label, [trial.label for trial in ranked if trial.label != label])
    advice.notes[:0] = flips
    if not best.is_line:
        advice.notes.append(CheapestElsewhereUnknown(label=best.label))


def _rates(evidence: Evidence, best: TrialCost, ranked: Sequence[TrialCost], at: float) -> Iterator[RateFlip]:
    """The rates below and above which another one would be cheaper, if each cost the same at other rates."""
    if not best.is_line:
        return
    lines = contenders([trial for trial in ranked if trial.is_line], evidence.pairs).trials
    segments = cheapest_by_rate(lines if best in lines else [best, *lines], evidence.pairs)
    here = next((i for i, segment in enumerate(segments) if segment.start <= at < segment.end), None)
    if here is None or segments[here].label != best.label:
        return
    for i, edge in ((here - 1, segments[here].start), (here + 1, segments[here].end)):
        if 0 <= i < len(segments):
            to = segments[i].label
            pair = evidence.pair(best.label, to)
            if edge == best.capacity:
                yield CapacityReachedFlip(at=edge, to=to, instead=best.label, capacity=evidence.capacity(best))
            elif is_told(pair):
                side: Literal["below", "above"] = "below" if i < here else "above"
                yield OtherRateFlip(at=edge, to=to, instead=best.label, side=side, ci95=pair.ci95)


def _memory_prices(evidence: Evidence, traffic: Traffic, ranked: Sequence[TrialCost]) -> Iterator[MemoryPriceFlip]:
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
