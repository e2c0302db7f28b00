"""The card: what to use for the stated traffic and prices, where that flips, and the settings to paste."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .advice import Advice, Evidence
from .amounts import number
from .app_settings import app_settings
from .break_even import break_even
from .card_at_rate import advise_at_rate
from .card_by_rate import advise_by_rate
from .economics import header_costs, states_a_rate
from .prices import FARGATE, Prices
from .rounds import Record, Run

MEMORY = {"pss": "PSS", "private": "private memory"}
BILLING = {"average": "for as long as it is held", "peak": "the most that was held, all the time"}


def card(run: Run, summary: Mapping[str, Any]) -> dict[str, Any]:
    """As summary.json has it; `summary` holds the trials and the economics already."""
    costs = header_costs(run)
    if costs is None or not costs.trials:
        reasons = set(costs.unpriced.values()) if costs else {"this run states no prices"}
        sentences = [f"There is no recommendation, because nothing can be priced: {'; '.join(sorted(reasons))}."]
        return _as_json(run.header, Advice(answer=sentences))
    advice = _advise(Evidence(summary, costs, summary["economics"]["break_even"]))
    if len(costs.trials) < 2:
        advice.recommended, advice.settles = None, _alone(summary)
    advice.answer[:0] = _recommendation(advice)
    advice.notes += _other_charge(run, summary, advice)
    advice.notes.append(_prices(costs.prices))
    return _as_json(run.header, advice)


def _alone(summary: Mapping[str, Any]) -> str:
    if len(summary["trials"]) < 2:
        return "A choice takes a second strategy; name one under 'strategies'."
    return "A choice takes a second strategy that can be priced."


def _recommendation(advice: Advice) -> list[str]:
    if advice.recommended is None:
        return []
    return [advice.headline]


def _advise(evidence: Evidence) -> Advice:
    known = evidence.rate is not None or states_a_rate(evidence.summary["workload"])
    return advise_at_rate(evidence) if known else advise_by_rate(evidence)


def _as_json(header: Record, advice: Advice) -> dict[str, Any]:
    return {
        "recommended": advice.recommended,
        "runner_up": advice.runner_up,
        "sentences": [*advice.answer, *advice.notes],
        "flips": advice.flips,
        "settings": _settings(header, advice),
        "settles": advice.settles,
    }


def _other_charge(run: Run, summary: Mapping[str, Any], advice: Advice) -> list[str]:
    """The answer where the other memory is paid for, if that is another one."""
    other = "private" if run.header["cost"]["charge"] == "pss" else "pss"
    costs = header_costs(run, other)
    if costs is None or not costs.trials:
        return []
    theirs = _advise(Evidence(summary, costs, break_even(costs)))
    if theirs.order == advice.order and not _moved(advice, theirs):
        return []
    return [f"If {MEMORY[other]} were paid for (charge: {other}): {' '.join(theirs.answer)}"]


def _moved(advice: Advice, other: Advice) -> bool:
    """Whether a rate is more than twice, or less than half, what it was."""
    edges = [[flip["at"] for flip in each.flips if flip["what"] == "rate"] for each in (advice, other)]
    return len(edges[0]) != len(edges[1]) or any(not 0.5 <= b / a <= 2 for a, b in zip(*edges, strict=True))


def _prices(prices: Prices) -> str:
    stated = {"memory_gib_hour": prices.memory_gib_hour, "cpu_hour": prices.cpu_hour}
    source = " (AWS Fargate's, in US dollars)" if stated == FARGATE else " (as 'cost' states them)"
    waiting = (
        f"{number(prices.latency_hour)} for an hour of a caller's waiting" if prices.latency_hour else "waiting is free"
    )
    return (
        f"Prices: {number(prices.memory_gib_hour)} for a GiB of memory for an hour ({MEMORY[prices.charge]},"
        f" {BILLING[prices.billing]}), {number(prices.cpu_hour)} for an hour of one core{source}; {waiting}."
        " Yours go under 'cost' in the experiment."
    )


def _settings(header: Record, advice: Advice) -> list[dict[str, str]]:
    """For each side of the rates at which the answer flips."""
    if advice.recommended is None:
        return []
    specs = {trial["label"]: trial for trial in header["trials"]}
    return [
        {
            "label": label,
            "where": where,
            "yaml": app_settings(header, specs[label], f"{label}, {where}" if where else label),
        }
        for label, where in advice.sides
    ]
