"""The card of a run whose workload has a rate: what is cheapest there, and where that ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .advice import Advice, Evidence, latency_flip, longer, rounds_lacking
from .amounts import between, number, rate
from .break_even import SAME_MIB
from .choice import cheapest_by_rate, contenders
from .economics import MILLION, TrialCost
from .intervals import further_rounds, interval
from .memory_price import Bill, memory_price_flips

MATTERS = 0.05  # costs whose difference is certainly smaller than that are the same for a choice


def advise_at_rate(evidence: Evidence) -> Advice:
    """Recommends what was cheapest under the run's own traffic, of those that meet the targets."""
    ranked = sorted(evidence.eligible, key=_per_answer)
    advice = Advice(notes=evidence.excluded)
    if not ranked:
        advice.answer = ["There is nothing to recommend."]
        return advice
    best, *others = ranked
    at = best.mean("rate")
    advice.order = (best.label,)
    if not others:
        advice.answer = [f"No other trial comes into question, so {best.label} was compared with none."]
        advice.settles = rounds_lacking(len(best.rounds), evidence.summary["rounds_due"])
    else:
        said, advice.settles = _against(evidence, best, others[0])
        advice.answer = [f"At {rate(at)}, as in this run, {said}"]
    advice.recommended = best.label if advice.settles is None else None
    advice.runner_up = others[0].label if others else None
    advice.flips = [*_rates(evidence, best, ranked, at), *_memory_prices(evidence, best, others)]
    advice.flips += latency_flip(evidence, best.label, [trial.label for trial in others])
    advice.notes[:0] = [flip["sentence"] for flip in advice.flips]
    if not best.is_line:
        why = "models expire in the gaps between requests, of which there would be others"
        advice.notes.append(f"From which rate on {best.label} would not be the cheapest is not known: {why}.")
    return advice


def _against(evidence: Evidence, best: TrialCost, second: TrialCost) -> tuple[str, str | None]:
    """What the cheapest costs and by how much that is less; and what would settle whether it is."""
    millions = [number(_per_answer(trial) * MILLION) for trial in (best, second)]
    costs = f"{millions[0]} against {millions[1]} for a million requests"
    both = sorted(set(best.rounds) & set(second.rounds))
    saved = [second.rounds[each].per_answer - best.rounds[each].per_answer for each in both]
    cheapest = f"{best.label} is the cheapest, before {second.label}: {costs}"
    if lacking := rounds_lacking(len(both), evidence.summary["rounds_due"]):
        return f"{cheapest}{longer(evidence, best.label, second.label)}.", lacking
    low, high, _ = interval(saved)
    within = f"difference {number(low * MILLION)} to {number(high * MILLION)}"
    if low > 0:
        return f"{cheapest} (95 % interval of the {within}){longer(evidence, best.label, second.label)}.", None
    if max(abs(low), abs(high)) <= MATTERS * _per_answer(best):
        return f"{best.label} and {second.label} cost the same within {MATTERS:.0%}: {costs}; take either.", None
    further = further_rounds(saved)
    settles = "Over 1000 more rounds would be needed to separate them: take either."
    if further is not None:
        settles = f"About {further} more rounds would probably separate them (repeats: {len(both) + further})."
    return f"{best.label} and {second.label} are not separable: {costs} (95 % interval of the {within}).", settles


def _rates(evidence: Evidence, best: TrialCost, ranked: Sequence[TrialCost], at: float) -> Iterator[dict[str, Any]]:
    """The rates below and above which another one would be cheaper, if each cost the same at other rates."""
    if not best.is_line:
        return
    lines = contenders([trial for trial in ranked if trial.is_line], evidence.pairs).trials
    segments = cheapest_by_rate(lines if best in lines else [best, *lines])
    here = next((i for i, segment in enumerate(segments) if segment.start <= at < segment.end), None)
    if here is None or segments[here].label != best.label:
        return
    for i, edge, side in ((here - 1, segments[here].start, "Below"), (here + 1, segments[here].end, "Above")):
        if 0 <= i < len(segments):
            to = segments[i].label
            pair = evidence.pair(best.label, to)
            sentence = f"{side} {rate(edge)}{between(pair['ci95'])} {to} would be cheaper."
            yield {"what": "rate", "at": edge, "unit": "requests/hour", "to": to, "sentence": sentence}


def _memory_prices(evidence: Evidence, best: TrialCost, others: Sequence[TrialCost]) -> Iterator[dict[str, Any]]:
    """The prices of a GiB-hour below and above which another one would be cheaper at this rate."""
    price = evidence.costs.prices.memory_gib_hour
    differ = [o for o in others if abs(best.mean("average_mib") - o.mean("average_mib")) >= SAME_MIB]
    return memory_price_flips(_bill(best, price), [_bill(other, price) for other in differ], price)


def _bill(trial: TrialCost, price: float) -> Bill:
    """For each answer."""
    gib_hours = trial.mean("gib_hours")
    return Bill(trial.label, gib_hours, _per_answer(trial) - gib_hours * price)


def _per_answer(trial: TrialCost) -> float:
    return trial.mean("per_answer")
