"""The rate above which a trial with more memory and cheaper requests is the cheaper of two."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

from ..stats.intervals import (
    VERDICT_ROUNDS,
    further_rounds,
    interval,
    sign,
    typical,
)
from .economics import Costs, TrialCost

SAME_MIB = 1.0  # trials whose memory differs by less hold the same memory
MATTERS = 0.05  # costs of a request whose difference is certainly a smaller share are the same for a choice


def break_even(costs: Costs | None) -> list[dict[str, Any]]:
    """Every pair of trials: each later one of the file against each earlier one, as summary.json has it.

    With the cost rates a_i + b_i λ, `rate_per_hour` is the λ = (a_i − a_j) / (b_j − b_i) of a typical round, of those
    that both finished; `ci95` is that of `crossing`. It is None if neither has the higher a and the lower b, and if the
    rounds cannot show which has (`reason`). `capped_per_hour` is the capacity of the one that is cheaper below, if that
    is lower. `cheaper_below` and `cheaper_above` are None if the rounds cannot show which is cheaper, and if both cost
    the same; `settled` is False if 5 rounds or more cannot show it.
    """
    return [_pair(trial, against) for against, trial in combinations(costs.trials, 2)] if costs else []


class Crossing(NamedTuple):
    """Where two lines meet: in a typical round, and the 95 % interval of that. Both bounds and `at` may be infinite."""

    at: float
    low: float
    high: float


def crossing(more: Sequence[float], less: Sequence[float]) -> Crossing:
    """The λ at which the median of more − λ · less is 0, where both are positive in most rounds.

    All λ that the sign of more − λ · less in each round does not refute (Fieller's inversion of a test, Journal of the
    Royal Statistical Society B 16, 1954, with `interval` in place of Student's): the interval of the median of the
    rounds' own rates, whose median it is. A round in which a request costs no less has its rate at infinity, one in
    which nothing more is held at 0. Below two rounds there is no interval.
    """
    own = [m / s if m > 0 and s > 0 else 0.0 if m <= 0 else math.inf for m, s in zip(more, less, strict=True)]
    at = typical(own)
    if len(own) < 2:
        return Crossing(at, 0.0, math.inf)
    if math.inf in own:  # the order is all that counts, so that a finite number beyond the others stands for it
        beyond = 2 * max((rate for rate in own if rate < math.inf), default=1.0) + 1
        low, high, _ = interval([min(rate, beyond) for rate in own])
        finite = max(rate for rate in own if rate < math.inf) if any(rate < math.inf for rate in own) else 0.0
        return Crossing(at, max(0.0, min(low, finite)), math.inf if high > finite else high)
    low, high, _ = interval(own)
    return Crossing(at, max(0.0, low), high)


def _pair(trial: TrialCost, against: TrialCost) -> dict[str, Any]:
    result: dict[str, Any] = {"trial": trial.label, "against": against.label}
    empty = dict.fromkeys(("rate_per_hour", "ci95", "cheaper_below", "cheaper_above", "capped_per_hour", "reason"))
    both = sorted(set(trial.rounds) & set(against.rounds))
    result |= empty | {"settled": True, "rounds": len(both)}
    if not both:
        return result | {"reason": "No round was finished by both.", "settled": False}
    for each in (trial, against):
        if not each.is_line:
            why = "its models expire in the gaps between requests"
            reason = f"The cost of {each.label} at other rates is unknown: {why}."
            return result | {"reason": reason, "settled": False}
    pairs = [(trial.rounds[number], against.rounds[number]) for number in both]
    more = [one.holding - other.holding for one, other in pairs]
    less = [other.per_request - one.per_request for one, other in pairs]
    mib = [one.charged_mib - other.charged_mib for one, other in pairs]
    return result | _verdict(trial, against, more, less, _holds(mib))


def _holds(mib: Sequence[float]) -> int | None:
    """1 or −1 if the first holds more or less memory, 0 if both hold the same to within 1 MiB, None if the rounds do
    not show which: that is not the same.
    """
    if len(mib) < VERDICT_ROUNDS:
        return 0 if abs(typical(mib)) < SAME_MIB else _of_figures(mib)
    low, high, _ = interval(mib)
    return 0 if max(abs(low), abs(high)) < SAME_MIB else sign(mib) or None


def _of_figures(values: Sequence[float]) -> int:
    return (typical(values) > 0) - (typical(values) < 0)


def _verdict(
    trial: TrialCost, against: TrialCost, more: Sequence[float], less: Sequence[float], holds: int | None
) -> dict[str, Any]:
    """`more` is what the trial costs more per hour, `less` what it saves on each request; `holds` is from `_holds`."""
    saves = sign(less) if len(less) >= VERDICT_ROUNDS else _of_figures(less)
    quick, slow = (trial, against) if saves > 0 else (against, trial)  # cheaper for each request
    if holds is None:
        return _open(quick, slow, more, saves)
    cheap, dear = (against, trial) if holds > 0 else (trial, against)  # to hold
    if saves == 0:
        return _alike(cheap, dear, holds, less)
    if holds == 0 or quick is cheap:
        sentence = f"{quick.label} holds {_memory(holds, slow)} and costs less per request."
        return {"cheaper_below": quick.label, "cheaper_above": quick.label, "reason": sentence}
    met = crossing(more, less) if holds > 0 else crossing([-m for m in more], [-s for s in less])
    rate = met.at if math.isfinite(met.at) else typical(more) / typical(less)
    result: dict[str, Any] = {"rate_per_hour": rate, "ci95": None}
    if len(more) >= VERDICT_ROUNDS and met.high < math.inf:
        result["ci95"] = [met.low, met.high]
    result |= {"cheaper_below": slow.label, "cheaper_above": quick.label}
    if slow.capacity is not None and slow.capacity < rate:
        most = f"{slow.label} answered at most {slow.capacity:,.0f} requests an hour, less than this break-even rate."
        result |= {"capped_per_hour": slow.capacity, "reason": most}
    elif len(more) < VERDICT_ROUNDS:
        result["reason"] = f"A measurement, not a verdict: a verdict needs {VERDICT_ROUNDS} rounds."
    return result


def _open(quick: TrialCost, slow: TrialCost, more: Sequence[float], saves: int) -> dict[str, Any]:
    """The rounds do not show which holds more; `quick` may still be known to cost less for each request."""
    start = f"In {len(more)} rounds, no difference in memory between {quick.label} and {slow.label} could be shown"
    above = quick.label if saves else None
    also = f"; {quick.label} costs less per request" if saves else ", nor in cost per request"
    return {"cheaper_above": above, "settled": False, "reason": f"{start}{also}. {_lacking(more)}"}


def _alike(cheap: TrialCost, dear: TrialCost, holds: int, less: Sequence[float]) -> dict[str, Any]:
    """The rounds do not show which costs less for each request."""
    if _is_trifle(less, cheap):
        within = f"cost the same per request (to within {MATTERS:.0%})"
        same = f"{cheap.label} and {dear.label} hold the same memory (to within 1 MiB) and {within}."
        lower = f"{cheap.label} holds less memory than {dear.label}, and both {within}."
        cheaper = None if holds == 0 else cheap.label
        return {"cheaper_below": cheaper, "cheaper_above": cheaper, "reason": same if holds == 0 else lower}
    rounds = f"{len(less)} round{'s' if len(less) > 1 else ''}"
    unknown = f"in {rounds}, no difference in cost per request could be shown"
    sentence = f"{cheap.label} holds {_memory(holds, dear)}; {unknown}."
    below = None if holds == 0 else cheap.label
    return {"cheaper_below": below, "settled": False, "reason": f"{sentence} {_lacking(less)}"}


def _memory(holds: int, other: TrialCost) -> str:
    return f"the same memory as {other.label} (to within 1 MiB)" if holds == 0 else f"less memory than {other.label}"


def _is_trifle(less: Sequence[float], trial: TrialCost) -> bool:
    """Whether requests certainly cost the same to within `MATTERS`; below 5 rounds, whether exactly the same."""
    if len(less) < VERDICT_ROUNDS:
        return not any(less)
    low, high, _ = interval(less)
    return max(abs(low), abs(high)) <= MATTERS * typical(trial.values("per_request"))


def _lacking(values: Sequence[float]) -> str:
    """How many more rounds would decide it, as far as that is known."""
    further = further_rounds(values) if len(values) >= VERDICT_ROUNDS else None
    if further is None:
        return "The number of further rounds needed is unknown: the difference is too small relative to its noise."
    return f"About {further} more rounds would decide it, if the true difference is as large as measured."
