"""The settings that a plan compares."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from ..decide.amounts import listed, number
from ..decide.prices import Prices
from ..decide.timeouts import ski_rental_timeout
from .plan_file import Grid, KeepAliveGrid, LruGrid, Planned, Ttl
from .profile import Profile
from .setting import Setting


def settings(planned: Planned, profile: Profile) -> list[Setting]:
    """In the order of the table; those that some model could not fit into are left out."""
    found = _all(planned.file.grid, profile, planned.prices)
    return [s for s in found if s.budget_mib is None or s.budget_mib >= _largest(profile)]


def left_out(planned: Planned, profile: Profile) -> list[str]:
    """Sentences."""
    budgets = {s.budget_mib for s in _all(planned.file.grid, profile, planned.prices) if s.budget_mib is not None}
    told = listed([f"{number(mib)} MiB" for mib in sorted(budgets) if mib < _largest(profile)])
    why = f"the largest model takes {number(_largest(profile))} MiB"
    return [f"{profile.shown_as}: a memory_budget of {told} is left out, because {why}."] if told else []


def _largest(profile: Profile) -> float:
    return max(model.weights_mib for model in profile.models.values())


def _all(grid: Grid, profile: Profile, prices: Prices) -> Iterator[Setting]:
    if grid.persistent is not None:
        yield Setting("persistent")
    if grid.on_demand is not None:
        for share in grid.on_demand.share:
            yield Setting("on-demand", {"share": True} if share else {}, "share" if share else "")
    if grid.lru_cached is not None:
        yield from _lru(grid.lru_cached, len(profile.models))
    if grid.keep_alive is not None:
        yield from _keep_alive(grid.keep_alive, profile, prices)


def _lru(grid: LruGrid, models: int) -> Iterator[Setting]:
    powers = [1 << exponent for exponent in range(16) if 1 << exponent < models]
    for capacity in powers if grid.capacity is None else grid.capacity:
        yield Setting("lru-cached", {"capacity": capacity})
    for budget in grid.memory_budget:
        yield Setting("lru-cached", {"memory_budget": int(budget)})


def _keep_alive(grid: KeepAliveGrid, profile: Profile, prices: Prices) -> Iterator[Setting]:
    for budget in grid.memory_budget:
        for ttl in grid.ttl:
            options: dict[str, Any] = {"ttl": _auto(profile, prices) if ttl == "auto" else ttl}
            name = "ttl k/m" if ttl == "auto" else ""
            if budget is not None:
                options["memory_budget"] = int(budget)
                name = f"{name}, memory_budget {budget / (1 << 20):g} MiB" if name else ""
            yield Setting("keep-alive", options, name)


def _auto(profile: Profile, prices: Prices) -> Ttl | dict[str, Ttl]:
    """k/m of each model, in three digits; one value where that is the same for all."""
    timeouts: dict[str, Ttl] = {}
    for name, model in profile.models.items():
        timeout = ski_rental_timeout(prices.holding(model.mib), model.cold_start(prices))
        timeouts[name] = float(f"{timeout:.3g}") if math.isfinite(timeout) else "forever"
    return timeouts if len(set(timeouts.values())) > 1 else next(iter(timeouts.values()))
