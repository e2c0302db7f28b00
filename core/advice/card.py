"""The card: what to use for the stated traffic and prices, which rates change that, and the settings to paste."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..costs.break_even import break_even
from ..costs.economics import Costs, header_costs
from ..costs.prices import Prices
from ..results.answers import NothingPriced, TrialLacking
from ..results.card import Card, Settings
from ..results.economics import BreakEven
from ..results.header import Charge, RunHeader
from ..results.notes import OtherCharge
from ..results.summary import Measurements
from ..stats.rounds import Run
from .advice import Advice, Evidence
from .app_settings import Chosen, app_settings
from .card_at_rate import advise_at_rate
from .card_by_rate import advise_by_rate
from .memory_notes import memory_notes

MOVED = 0.1  # of a rate: what moves it by less leaves the answer as it is


def card(run: Run, measured: Measurements, costs: Costs | None, pairs: Sequence[BreakEven]) -> Card:
    """What to use, and why; `pairs` are the break-even rates at these costs."""
    if costs is None or not costs.trials:
        reasons = list(costs.unpriced.values()) if costs else []
        return _card(run.header, Advice(answer=[NothingPriced(reasons=list(dict.fromkeys(reasons)))]))
    advice = _advise(Evidence(measured, costs, pairs))
    if len(costs.trials) < 2:
        advice.recommended, advice.settles = None, TrialLacking(has_second=len(measured.trials) > 1)
    advice.notes += [*memory_notes(measured, costs), *_other_charge(run, measured, costs.prices, advice)]
    return _card(run.header, advice)


def _advise(evidence: Evidence) -> Advice:
    is_known = evidence.rate is not None or not evidence.clients
    return advise_at_rate(evidence) if is_known else advise_by_rate(evidence)


def _card(header: RunHeader, advice: Advice) -> Card:
    return Card(
        recommended=advice.recommended,
        runner_up=advice.runner_up,
        answer=advice.answer,
        notes=advice.notes,
        settings=_settings(header, advice),
        settles=advice.settles,
    )


def _other_charge(run: Run, measured: Measurements, prices: Prices, advice: Advice) -> Iterator[OtherCharge]:
    """The answer under the other `charge`, if it differs; loads may then be priced from the other page cache, too."""
    other: Charge = "private" if prices.charge == "pss" else "pss"
    costs = header_costs(run, other)
    if prices.billing == "size" or costs is None or not costs.trials:
        return
    theirs = _advise(Evidence(measured, costs, break_even(costs)))
    if theirs.order == advice.order and not _is_moved(advice, theirs):
        return
    is_priced = any(trial.load is not None and trial.load.lacking is None for trial in costs.trials)
    elsewhere = is_priced and costs.prices.loads_from != prices.loads_from
    yield OtherCharge(charge=other, loads_from=costs.prices.loads_from if elsewhere else None, answer=theirs.answer)


def _is_moved(advice: Advice, other: Advice) -> bool:
    """Whether a rate at which the answer changes is another one."""
    edges = [[flip.at for flip in each.rate_flips] for each in (advice, other)]
    return len(edges[0]) != len(edges[1]) or any(abs(b / a - 1) > MOVED for a, b in zip(*edges, strict=True))


def _settings(header: RunHeader, advice: Advice) -> list[Settings]:
    """The settings of each side of the rates at which the answer changes."""
    if advice.recommended is None:
        return []
    specs = {spec.label: spec for spec in header.trials}
    found = []
    for label, rates in advice.sides:
        spec = specs[label]
        chosen = Chosen(spec.strategy, spec.options, spec.loader, spec.loader_options, spec.cluster)
        lifecycle = spec.cluster.lifecycle if spec.cluster else None
        # Our settings cannot start what Ray's own routing serves.
        yaml = "" if lifecycle == "ray-multiplexed" else app_settings(header, chosen)
        found.append(Settings(label=label, rates=rates, route=spec.route, yaml=yaml, lifecycle=lifecycle))
    return found
