"""An adversary: it requests each model when that makes the strategy pay the most, compared to one that keeps for k/m.

It sees when a model will expire. Rests are in units of the model's k/m, and costs in units of its k.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..residency.replay import Replay, ReplayedModel
from .scenarios import Requests, break_even_s

AT_ONCE = 1 / 128  # a rest that costs nearly nothing
JUST = 1e-6  # how much later than the expiry a model is requested
REQUESTS = 2000
PATIENCE = 16.0  # the longest rest that it waits for


def rest_against(timeout: float) -> float:
    """The rest that costs the most under a timeout, compared to the same rest under k/m, then to the clairvoyant's."""
    rests = (AT_ONCE, max(AT_ONCE, min(PATIENCE, timeout + JUST)), PATIENCE)
    return max(rests, key=lambda rest: (round(_cost(rest, timeout) / _cost(rest, 1.0), 3), _cost(rest, timeout)))


def _cost(rest: float, timeout: float) -> float:
    return rest if rest <= timeout else timeout + 1


def oppose(replay: Replay, models: Mapping[str, ReplayedModel]) -> Requests:
    """Send requests, each chosen after what the strategy has decided on those before, and return them.

    A model that is evicted long before holding it has cost a cold start is requested at once.
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
        planned[name] = now + rest_against(timeout) * units[name]
        for other, used in last.items():
            if replay.due(other) <= now < used + units[other]:
                planned[other] = min(planned[other], now + AT_ONCE * units[other])
    return requests
