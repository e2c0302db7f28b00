"""The card of a run that states no rate: which trial to use below and above which rate."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Literal, NamedTuple

from ..costs.break_even import break_even
from ..costs.economics import TrialCost
from ..costs.prices import HOUR, Prices
from ..costs.worth import at, differences, rounds_to_settle, saving, settled_between
from ..results.answers import (
    CheapestAtEveryRate,
    FurtherRounds,
    MeasuredCheapest,
    NoAlternative,
    NoneKnownCheaper,
    NothingEligible,
    RateNotSettled,
    RateSaving,
    SavingsByRate,
)
from ..results.flips import BreakEvenFlip, CapacityFlip, MeasuredFlip, RateFlip, Rates
from ..results.notes import Finding, OtherCheapestAtTwice, RatesAtTwice, UnknownAbove
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
from .choice import Segment, cheapest_by_rate, contenders, is_told


class Side(NamedTuple):
    """A range of rates, in requests per hour, for which one trial is recommended."""

    label: str
    start: float
    end: float
    same: tuple[str, ...] = ()
    """Labels of the trials that cost the same there."""
    most: float = 0.0
    """The most that one of them saves in a month; infinite if they cost the same in proportion."""

    @property
    def rates(self) -> Rates:
        return Rates(start=self.start, end=self.end)


def advise_by_rate(evidence: Evidence) -> Advice:
    """Recommends a trial for every rate at which the cheapest is settled, up to the highest rate that was answered."""
    lines = [trial for trial in evidence.eligible if trial.is_line]
    found = contenders(lines, evidence.pairs)
    segments = cheapest_by_rate(found.trials, evidence.pairs)
    advice = Advice(notes=[*found.reasons, *evidence.excluded, *gaps(evidence), *back_to_back(evidence)])
    if not segments:
        advice.answer = [NothingEligible()]
        return advice
    labels = [segment.label for segment in segments]
    advice.settles = rounds_lacking(min(len(trial.rounds) for trial in lines), evidence.measured.rounds_due)
    told = [(below, above) for below, above in pairwise(segments) if _is_known(evidence, below, above)]
    if len(segments) == 1:
        advice.answer = [_everywhere(evidence, segments[0], lines, is_figure=bool(advice.settles))]
    else:
        advice.answer = [_flip(evidence, below, above, is_figure=bool(advice.settles)) for below, above in told]
    sides = [] if advice.settles else _sides(evidence, segments, lines, advice)
    if sides:
        _recommend(evidence, sides, advice)
    advice.order = tuple(side.label for side in sides) or tuple(labels)
    dearer = sorted(lines, key=lambda trial: trial.typical("per_request"))
    ranked = dict.fromkeys([*reversed(advice.order), *reversed(labels), *(trial.label for trial in dearer)])
    advice.runner_up = next((label for label in ranked if label != advice.order[-1]), None)
    for label in dict.fromkeys([*labels, *advice.order]):
        advice.notes[:0] = latency_flip(evidence, label, list(ranked))
    if sides and sides[-1].end == evidence.cost(labels[-1]).capacity:
        best = evidence.cost(labels[-1])
        advice.notes.append(UnknownAbove(label=best.label, capacity=evidence.capacity(best)))
    if told and len(told) == len(segments) - 1 and evidence.costs.prices.billing != "size":
        advice.notes.append(_at_twice_the_price(evidence, found.trials, segments))
    return advice


def _recommend(evidence: Evidence, sides: Sequence[Side], advice: Advice) -> None:
    """Recommend a trial for each range of rates, with the reasons; if it is one for all, a flip is but a note."""
    advice.recommended = sides[-1].label
    advice.sides = [(side.label, side.rates) for side in sides]
    why: list[Finding] = []
    for side in sides:
        if side.same:
            most = side.most if math.isfinite(side.most) else None
            rates = side.rates if len(sides) > 1 else None
            why.append(why_the_fastest(evidence, side.label, side.same, rates, most))
    if why and len(sides) == 1:
        advice.notes[:0] = advice.answer
        advice.answer = []
    advice.answer += [*why, *_worth(evidence, sides), *doubts(evidence, [side.label for side in sides])]


def _is_known(evidence: Evidence, below: Segment, above: Segment) -> bool:
    """Whether the rounds show where `above` becomes cheaper, or the most that `below` can answer."""
    return evidence.cost(below.label).capacity == below.end or is_told(evidence.pair(below.label, above.label))


def _everywhere(evidence: Evidence, segment: Segment, lines: Sequence[TrialCost], *, is_figure: bool) -> Finding:
    """What is known of the trial that no other one is known to beat at any rate; `is_figure`: with too few rounds."""
    best = evidence.cost(segment.label)
    others = [each for each in lines if each is not best]
    if not others:
        return NoAlternative(label=best.label)
    if is_figure:
        return MeasuredCheapest(label=best.label)
    found = {each.label: [saving(best, each, at(edge)) for edge in segment[1:]] for each in others}
    more = [each for each in others if not all(edge.is_tie(evidence.trifle) for edge in found[each.label])]
    if not more or not all(edge.is_settled(evidence.trifle) for edges in found.values() for edge in edges):
        return NoneKnownCheaper(label=best.label)
    second = min(more, key=lambda each: each.typical("per_request"))
    return CheapestAtEveryRate(savings=_saves(evidence, best.label, second.label, segment, keeps_models=False))


def _sides(evidence: Evidence, segments: Sequence[Segment], lines: Sequence[TrialCost], advice: Advice) -> list[Side]:
    """The rates for which something is recommended."""
    sides: list[Side] = []  # from the highest rates down
    for segment in reversed(segments):
        settled = _settled(evidence, segment, lines, advice)
        if settled.end <= settled.start:
            continue
        above = sides[-1] if sides else None
        side = _to_take(evidence, settled, lines, above.label if above else None)
        if above and above.label == side.label and above.start == side.end:
            same = tuple(dict.fromkeys((*side.same, *above.same)))
            sides[-1] = above._replace(start=side.start, same=same, most=max(side.most, above.most))
        else:
            sides.append(side)
    if sides:
        advice.settles = None
    return sides[::-1]


def _settled(evidence: Evidence, segment: Segment, lines: Sequence[TrialCost], advice: Advice) -> Segment:
    """The part of the segment in which no other trial may be cheaper; notes of the rest that it is not known."""
    best, (start, end) = evidence.cost(segment.label), segment[1:]
    for other in lines:
        if other is best:
            continue
        low, high = settled_between(best, other, *segment[1:], evidence.trifle)
        if (low, high) != segment[1:] and not _flips(evidence, best, other):  # next to a flip it never is
            side: Literal["below", "above"] = "below" if high == segment.end else "above"
            edge = low if side == "below" else high
            more = rounds_to_settle(differences(best, other, at(segment.end if high < segment.end else segment.start)))
            advice.notes.insert(0, _not_settled(best, other, side if low < high else None, edge, more))
            advice.settles = advice.settles or more
        start, end = max(start, low), min(end, high)
    return segment._replace(start=start, end=end)


def _flips(evidence: Evidence, one: TrialCost, other: TrialCost) -> bool:
    """Whether the rounds show at which rate the one becomes cheaper than the other."""
    pair = evidence.pair(one.label, other.label)
    return pair.rate_per_hour is not None and is_told(pair)


def _to_take(evidence: Evidence, segment: Segment, lines: Sequence[TrialCost], above: str | None) -> Side:
    """The cheapest trial; if others cost the same from one end of the segment to the other, the fastest of them.

    `above` is the one recommended for higher rates.
    """
    best = evidence.cost(segment.label)
    able = [each for each in lines if each is best or each.capacity is None or each.capacity >= segment.end]
    found = {each.label: [saving(best, each, at(edge)) for edge in segment[1:]] for each in able}
    ties = [label for label, edges in found.items() if all(edge.is_tie(evidence.trifle) for edge in edges)]
    dearer = [each for each in able if each.label not in ties]
    ties = [each for each in ties if each == best.label or not _costs_more(evidence.cost(each), dearer, segment)]
    label = fastest(evidence, ties, above)
    savings = [edge for each in ties for edge in found[each]]
    most = max(each.high if each.is_trifle(evidence.trifle) else math.inf for each in savings)
    return Side(label, segment.start, segment.end, tuple(each for each in ties if each != label), most)


def _costs_more(trial: TrialCost, others: Sequence[TrialCost], rates: Segment) -> bool:
    """Whether it costs more than one of the others somewhere, though it costs about as much as the cheapest one."""
    return any(saving(trial, other, at(edge)).typical < 0 for other in others for edge in rates[1:])


def _worth(evidence: Evidence, sides: Sequence[Side]) -> Iterator[Finding]:
    """What each side saves in a month against the trial that keeps its models; the flips compare the sides."""
    for side in sides:
        simple = simplest(evidence, side.label)
        if simple is not None and simple not in [each.label for each in sides]:
            yield _saves(evidence, side.label, simple, Segment(*side[:3]), keeps_models=True)


def _saves(evidence: Evidence, label: str, other: str, rates: Segment, *, keeps_models: bool) -> SavingsByRate:
    """What it saves in a month, from one end of the rates to the other; `keeps_models` is said of the other one."""
    found = []
    for edge in rates[1:]:
        amount = saving(evidence.cost(label), evidence.cost(other), at(edge)).typical
        found.append(RateSaving(per_hour=edge, saves=amount))
    return SavingsByRate(label=label, against=other, keeps_models=keeps_models, savings=found)


def _not_settled(
    best: TrialCost, other: TrialCost, side: Literal["below", "above"] | None, edge: float, settles: FurtherRounds
) -> RateNotSettled:
    return RateNotSettled(label=best.label, against=other.label, side=side, at=edge, settles=settles)


def _flip(evidence: Evidence, below: Segment, above: Segment, *, is_figure: bool) -> RateFlip:
    """The change from `below` to `above`, because of their costs, or because `below` was not seen to answer more."""
    low, high = evidence.cost(below.label), evidence.cost(above.label)
    costs_callers = longer(evidence, below.label, above.label)
    if low.capacity == below.end:
        return CapacityFlip(
            at=below.end,
            to=low.label,
            instead=high.label,
            is_verdict=not is_figure,
            longer=costs_callers,
            capacity=evidence.capacity(low),
        )
    if is_figure:
        return MeasuredFlip(at=below.end, to=low.label, instead=high.label)
    end = above.end if low.capacity is None else min(above.end, low.capacity)  # what was measured of both
    return BreakEvenFlip(
        at=below.end,
        to=low.label,
        instead=high.label,
        ci95=evidence.pair(low.label, high.label).ci95,
        start=below.start,
        saves=saving(low, high, at(below.start)).typical,
        above=end,
        saves_above=saving(high, low, at(end)).typical,
        longer=costs_callers,
    )


def _at_twice_the_price(evidence: Evidence, trials: Sequence[TrialCost], segments: Sequence[Segment]) -> Finding:
    """At which rates the answer changes at twice the price of memory."""
    doubled = [_with_dearer_memory(trial, evidence.costs.prices) for trial in trials]
    dearer = cheapest_by_rate(doubled, break_even(replace(evidence.costs, trials=doubled)))
    if [each.label for each in dearer] != [each.label for each in segments]:
        return OtherCheapestAtTwice(label=dearer[-1].label, start=dearer[-1].start)
    return RatesAtTwice(rates=[each.end for each in dearer[:-1]])


def _with_dearer_memory(trial: TrialCost, prices: Prices) -> TrialCost:
    """The trial at twice the price of memory."""
    rounds = {
        number: replace(
            each,
            holding=2 * each.holding,
            per_request=each.per_request + prices.holding(each.average_mib - each.charged_mib) * HOUR / each.rate,
        )
        for number, each in trial.rounds.items()
    }
    return replace(trial, rounds=rounds)
