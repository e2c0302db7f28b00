"""What the recommended setting trades: a lower cost for more cold starts."""

from __future__ import annotations

from collections.abc import Sequence

from ..costs.prices import Prices
from ..results.plan_models import Trade
from .candidates import Candidate
from .outcome import SAME


def trade(chosen: Candidate, found: Sequence[Candidate], prices: Prices) -> Trade | None:
    """What the setting saves compared to the cheapest one of the same strategy and loader that has fewer cold starts;
    None if there is none, or if both cost the same.
    """
    siblings = [each for each in found if _is_sibling(chosen, each)]
    loads = sum(chosen.by_model.loads)
    if not siblings or not loads:
        return None
    sibling = min(siblings, key=lambda each: each.costs[0])
    if sibling.costs[0] <= (1 + SAME) * chosen.costs[0] or sibling.costs[0] <= 0:
        return None
    models = list(zip(chosen.by_model.loads, chosen.profile.models.values(), strict=True))
    return Trade(
        label=chosen.label,
        sibling=sibling.label,
        saves_share=1 - chosen.costs[0] / sibling.costs[0],
        cold_share=chosen.figures.cold_share,
        sibling_cold_share=sibling.figures.cold_share,
        cold_start=sum(n * model.cold_start(prices) for n, model in models) / loads,
        cold_start_ms=sum(n * model.waiting_s for n, model in models) / loads * 1e3,
    )


def _is_sibling(chosen: Candidate, other: Candidate) -> bool:
    """Whether it is eligible and has the same strategy and loader, and clearly fewer cold starts."""
    return (
        other.setting.strategy == chosen.setting.strategy
        and other.profile is chosen.profile
        and (1 + SAME) * other.figures.cold_share < chosen.figures.cold_share
        and other.is_eligible
    )
