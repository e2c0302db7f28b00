"""The card: what to use for the stated traffic and prices, which rates change that, and the settings to paste."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..costs.break_even import break_even
from ..costs.economics import header_costs
from ..costs.prices import FARGATE, Prices
from ..report.format import listed, number
from ..results.header import Charge, RunHeader
from ..stats.rounds import Run
from .advice import Advice, Evidence
from .app_settings import Chosen, app_settings
from .card_at_rate import advise_at_rate
from .card_by_rate import advise_by_rate
from .memory_words import FROM, memory_in_words

MEMORY = {"pss": "PSS", "private": "private memory"}
MOVED = 0.1  # of a rate: what moves it by less leaves the answer as it is
YOURS = "Set your own under 'cost' in the experiment."
BILLING = {"average": "while it is held", "peak": "the most that was held, all the time"}


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
    advice.notes += [*memory_in_words(run, summary, costs), *_other_charge(run, summary, costs.prices, advice)]
    advice.notes.append(_prices(costs.prices))
    return _as_json(run.header, advice)


def _alone(summary: Mapping[str, Any]) -> str:
    if len(summary["trials"]) < 2:
        return "A recommendation needs a second strategy; name one under 'strategies'."
    return "A recommendation needs a second strategy that can be priced."


def _recommendation(advice: Advice) -> list[str]:
    if advice.recommended is None:
        return []
    return [advice.headline]


def _advise(evidence: Evidence) -> Advice:
    is_known = evidence.rate is not None or not evidence.clients
    return advise_at_rate(evidence) if is_known else advise_by_rate(evidence)


def _as_json(header: RunHeader, advice: Advice) -> dict[str, Any]:
    return {
        "recommended": advice.recommended,
        "runner_up": advice.runner_up,
        "sentences": [*advice.answer, *advice.notes],
        "flips": advice.flips,
        "settings": _settings(header, advice),
        "settles": advice.settles,
    }


def _other_charge(run: Run, summary: Mapping[str, Any], prices: Prices, advice: Advice) -> list[str]:
    """The answer under the other `charge`, if it differs; loads may then be priced from the other page cache, too."""
    other: Charge = "private" if prices.charge == "pss" else "pss"
    costs = header_costs(run, other)
    if prices.billing == "size" or costs is None or not costs.trials:
        return []
    theirs = _advise(Evidence(summary, costs, break_even(costs)))
    if theirs.order == advice.order and not _moved(advice, theirs):
        return []
    priced = any(trial.load is not None and not trial.load.lacking for trial in costs.trials)
    elsewhere = priced and costs.prices.loads_from != prices.loads_from
    loads = f"; loads are then priced from {FROM[costs.prices.loads_from]}" if elsewhere else ""
    what = f"With 'charge: {other}' ({MEMORY[other]} is charged{loads})"
    return [f"{what}, the answer is: {' '.join(theirs.answer)}"]


def _moved(advice: Advice, other: Advice) -> bool:
    """Whether a rate at which the answer changes is another one."""
    edges = [[flip["at"] for flip in each.flips if flip["what"] == "rate"] for each in (advice, other)]
    return len(edges[0]) != len(edges[1]) or any(abs(b / a - 1) > MOVED for a, b in zip(*edges, strict=True))


def _prices(prices: Prices) -> str:
    hour = number(prices.latency_hour)
    waiting = f"an hour of a caller's waiting {hour}" if prices.latency_hour else "waiting is free"
    if prices.billing == "size":
        sizes = (f"{number(s.hour)} for {s.memory_mib:.0f} MiB and {number(s.cpu)} cores" for s in prices.sizes)
        return f"Hourly price of each size: {listed(list(sizes))}; {waiting}. {YOURS}"
    is_fargate = {"memory_gib_hour": prices.memory_gib_hour, "cpu_hour": prices.cpu_hour} == FARGATE
    source = "in US dollars, AWS Fargate's unit prices" if is_fargate else "as stated under 'cost'"
    size = " Fargate itself bills the size of a task, not what it uses; for that, set 'billing: size'."
    return (
        f"Prices ({source}): a GiB-hour of memory ({MEMORY[prices.charge]}, {BILLING[prices.billing]})"
        f" {number(prices.memory_gib_hour)}; a core-hour {number(prices.cpu_hour)}; {waiting}."
        f"{size if is_fargate else ''} {YOURS}"
    )


def _settings(header: RunHeader, advice: Advice) -> list[dict[str, str]]:
    """The settings of each side of the rates at which the answer changes."""
    if advice.recommended is None:
        return []
    specs = {spec.label: spec for spec in header.trials}
    found = []
    for label, where in advice.sides:
        spec, title = specs[label], f"{label}, {where}" if where else label
        chosen = Chosen(spec.strategy, spec.route, spec.options, spec.loader, spec.loader_options)
        found.append({"label": label, "where": where, "yaml": app_settings(header, chosen, title)})
    return found
