"""The card of a run that states no traffic: which trial is the cheapest below and above which rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from ..quantities import duration
from .advice import Advice, Evidence, latency_flip, longer, rounds_lacking
from .amounts import between, listed, number, rate
from .choice import Segment, cheapest_by_rate, contenders, costs_the_same
from .economics import TrialCost
from .prices import HOUR, Prices


def advise_by_rate(evidence: Evidence) -> Advice:
    """Recommends what is cheapest at the highest rates, and says below which rate another one is."""
    lines = [trial for trial in evidence.eligible if trial.is_line]
    found = contenders(lines, evidence.pairs)
    segments = cheapest_by_rate(found.trials)
    advice = Advice(notes=[*found.sentences, *evidence.excluded, *_gaps(evidence)])
    if not segments:
        advice.answer = ["There is nothing to recommend."]
        return advice
    labels = [segment.label for segment in segments]
    others = sorted(
        (trial for trial in lines if trial.label != labels[-1]), key=lambda trial: trial.mean("per_request")
    )
    advice.order = tuple(labels)
    advice.settles = rounds_lacking(min(len(trial.rounds) for trial in lines), evidence.summary["rounds_due"])
    advice.recommended = labels[-1] if advice.settles is None else None
    advice.runner_up = labels[-2] if len(labels) > 1 else others[0].label if others else None
    advice.flips = [_flip(evidence, below, above) for below, above in pairwise(segments)]
    advice.answer = [flip["sentence"] for flip in advice.flips] or [_everywhere(evidence, labels[-1], lines)]
    for label in dict.fromkeys(reversed(labels)):
        targets = latency_flip(evidence, label, [*reversed(labels), *(trial.label for trial in others)])
        advice.flips += targets
        advice.notes[:0] = [flip["sentence"] for flip in targets]
    if len(segments) > 1:
        advice.where = f", from {rate(segments[-1].start)} on"
        advice.notes.append(_at_twice_the_price(evidence, found.trials, segments))
    return advice


def _everywhere(evidence: Evidence, label: str, lines: Sequence[TrialCost]) -> str:
    """Of the one that no other is known to beat at any rate."""
    pairs = {each.label: evidence.pair(label, each.label) for each in lines if each.label != label}
    same = [other for other, pair in pairs.items() if costs_the_same(pair)]
    unsure = [o for o, pair in pairs.items() if pair["cheaper_below"] == label and pair["cheaper_above"] is None]
    if unsure:
        return f"{label} is the cheapest at low rates; at high ones the rounds cannot tell it from {listed(unsure)}."
    if same:
        costs = "costs" if len(same) == 1 else "cost"
        told = f"as far as the rounds can tell, {listed(same)} {costs} the same"
        return f"No other is cheaper than {label} at any rate; {told}."
    return f"{label} is the cheapest at every rate."


def _at_twice_the_price(evidence: Evidence, trials: Sequence[TrialCost], segments: Sequence[Segment]) -> str:
    """How the rates move with the price of memory."""
    dearer = cheapest_by_rate([_with_dearer_memory(trial, evidence.costs.prices) for trial in trials])
    if [each.label for each in dearer] != [each.label for each in segments]:
        last = dearer[-1]
        where = f"from {rate(last.start)} on" if last.start else "at every rate"
        return f"At twice the price of memory {last.label} is the cheapest {where}."
    rates = listed([rate(each.end) for each in dearer[:-1]])
    return f"At twice the price of memory it flips at {rates}."


def _with_dearer_memory(trial: TrialCost, prices: Prices) -> TrialCost:
    """At twice its price."""
    rounds = {
        number: replace(
            each,
            holding=2 * each.holding,
            per_request=each.per_request + prices.holding(each.average_mib - each.charged_mib) * HOUR / each.rate,
        )
        for number, each in trial.rounds.items()
    }
    return replace(trial, rounds=rounds)


def _flip(evidence: Evidence, below: Segment, above: Segment) -> dict[str, Any]:
    """From `below` to `above`, by what they cost or because `below` was not seen to answer more."""
    costs = longer(evidence, below.label, above.label)
    if evidence.cost(below.label).capacity == below.end:
        closed = (evidence.summary["workload"] or {}).get("closed") or {}
        clients = closed.get("clients", 1)
        asked = f"{clients} clients that ask" if clients > 1 else "one client that asks"
        sentence = (
            f"Up to {rate(below.end)} {below.label} is cheaper{costs}. No more was answered to {asked} without pause:"
            f" above that it may not keep up; take {above.label}."
        )
    else:
        interval = between(evidence.pair(below.label, above.label)["ci95"])
        rates = f"From {number(below.start)} to" if below.start else "Below"
        sentence = f"{rates} {rate(below.end)}{interval} {below.label} is cheaper{costs}. Above, {above.label} is."
    return {"what": "rate", "at": below.end, "unit": "requests/hour", "to": below.label, "sentence": sentence}


def _gaps(evidence: Evidence) -> list[str]:
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
