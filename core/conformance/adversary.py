"""An adversary, which requests each model when that costs the strategy the most, compared to a timeout of k/m.

It sees when a model will expire. Gaps are in units of the model's k/m, and costs in units of its k.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..residency.replay import Replay, ReplayedModel
from .scenarios import Requests, break_even_s

AT_ONCE = 1 / 128  # a gap that costs nearly nothing
JUST = 1e-6  # how much later than the expiry a model is requested
REQUESTS = 2000
PATIENCE = 16.0  # the longest gap that it waits for


def gap_against(timeout: float) -> float:
    """The gap that costs the most under a timeout compared to k/m; of several, the one that costs the most."""
    gaps = (AT_ONCE, max(AT_ONCE, min(PATIENCE, timeout + JUST)), PATIENCE)
    return max(gaps, key=lambda gap: (round(_cost(gap, timeout) / _cost(gap, 1.0), 3), _cost(gap, timeout)))


def _cost(gap: float, timeout: float) -> float:
    return gap if gap <= timeout else timeout + 1


def oppose(replay: Replay, models: Mapping[str, ReplayedModel]) -> Requests:
    """Send requests, each chosen by what the strategy has decided so far, and return them.

    A model that is freed before it was held for k/m is requested at once.
    """
    units = {name: break_even_s(model) for name, model in models.items()}
    planned = {name: i * AT_ONCE * unit for i, (name, unit) in enumerate(units.items())}
    last: dict[str, float] = {}
    requests: list[tuple[float, str]] = []
    while len(requests) < REQUESTS:
        name = min(planned, key=planned.__getitem__)
        now = planned[name]
        replay.request(name, now)
        requests.append((now, name))
        last[name] = now
        timeout = max(0.0, replay.due(name) - now) / units[name]
        planned[name] = now + gap_against(timeout) * units[name]
        for other, used in last.items():
            if replay.due(other) <= now < used + units[other]:
                planned[other] = min(planned[other], now + AT_ONCE * units[other])
    return requests
