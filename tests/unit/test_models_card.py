"""What a plan says of its models: each costs its MiB a second, and its caller 3 for the 3 s of a load."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from core.costs.prices import HOUR, Prices
from core.costs.worth import MONTH
from core.planning.arrivals import Arrivals
from core.planning.candidates import Candidate, simulate
from core.planning.models_card import NAMED, costliest, pin_and_drop
from core.planning.profile import Profile
from core.planning.theory import in_hindsight, theory_over_models
from core.planning.trade import trade
from core.results.plan import SettingFigures
from core.results.plan_models import ModelsToDrop, ModelsToPin, Quantiles, TimeoutQuantiles
from tests.unit.test_memory_curve import different
from tests.unit.test_plan_prose import THEORY
from tests.unit.test_simulate import PRICES, setting

# m0 each 2 s, m1 twice, m2 never
OFTEN_AND_SELDOM = Arrivals(sorted([*map(float, range(0, 101, 2)), 1.0, 51.0]), [0, 1, *[0] * 25, 1, *[0] * 25])


def candidate(name: str, profile: Profile, arrivals: Arrivals, prices: Prices = PRICES, **options: Any) -> Candidate:
    chosen, models = setting(name, **options), list(profile.models.values())
    outcome = simulate(chosen, profile, arrivals, 32, 0, prices)
    result = outcome.figures(0.0, models, prices)
    figures = SettingFigures(
        **dict(result), label=chosen.label, strategy=name, route=chosen.route, options=dict(options),
        loader=profile.loader, loader_options={}, cores=0.0, size=None, regret=None, most_mib=None, targets=[],
        decides_per_hour=[result.cost_per_hour], first_half=0.0, second_half=0.0,
    )  # fmt: skip
    return Candidate(profile, chosen, figures, outcome.by_model)


def test_the_costliest_models_are_named_with_what_they_cost() -> None:
    """m0 is held for 100 s; m1 for 3 s of a load and 10 s of idleness, twice."""
    found = costliest(candidate("keep-alive", different(1.0, 1.0, 1.0), OFTEN_AND_SELDOM, ttl=10), PRICES)
    assert found is not None
    month = MONTH * HOUR / 100
    assert (found.label, found.models) == ("keep-alive (ttl 10)", 3)
    assert found.total == pytest.approx(135 * month)
    assert [(each.model, each.requests, each.loads) for each in found.named] == [("m0", 51, 1), ("m1", 2, 2)]
    assert [each.holding for each in found.named] == pytest.approx([100 * month, 26 * month])
    assert [each.cold_starts for each in found.named] == pytest.approx([3 * month, 6 * month])
    assert [each.share for each in found.named] == pytest.approx([103 / 135, 32 / 135])


def test_what_models_cost_is_the_cost_of_the_theory() -> None:
    profile = different(1.0, 2.0, 3.0)
    chosen = candidate("keep-alive", profile, OFTEN_AND_SELDOM, ttl=5)
    outcome = simulate(chosen.setting, profile, OFTEN_AND_SELDOM, 32, 0, PRICES)
    found = costliest(chosen, PRICES)
    assert found is not None
    whole = outcome.keep_alive_cost(list(profile.models.values()), PRICES)
    assert found.total == pytest.approx(whole * MONTH * HOUR / outcome.seconds)


def test_ten_models_are_named_and_none_where_there_is_one_or_nothing_to_pay() -> None:
    arrivals = Arrivals([10.0 * number for number in range(25)], [*[*range(12)] * 2, 0])
    found = costliest(candidate("keep-alive", different(*range(1, 13)), arrivals, ttl=1), PRICES)
    assert found is not None
    assert [each.model for each in found.named] == [f"m{number}" for number in range(11, 1, -1)]
    assert len(found.named) == NAMED
    assert costliest(candidate("persistent", different(1.0), Arrivals([0.0, 1.0], [0, 0])), PRICES) is None
    free = replace(PRICES, memory_gib_hour=0.0, latency_hour=0.0)
    assert costliest(candidate("persistent", different(1.0, 1.0), OFTEN_AND_SELDOM, free), free) is None


def test_where_memory_is_paid_for_all_the_time_only_cold_starts_are_of_a_model() -> None:
    peak = replace(PRICES, billing="peak")
    chosen = candidate("keep-alive", different(1.0, 1.0), OFTEN_AND_SELDOM, peak, ttl=10)
    found = costliest(chosen, peak)
    assert found is not None
    assert [(each.model, each.holding) for each in found.named] == [("m1", 0.0), ("m0", 0.0)]
    assert not list(pin_and_drop(chosen, OFTEN_AND_SELDOM, peak))


def test_what_is_often_requested_is_to_be_pinned_and_what_seldom_is_dropped() -> None:
    profile = different(1.0, 1.0, 1.0)
    month = MONTH * HOUR / 100
    [drop] = pin_and_drop(candidate("keep-alive", profile, OFTEN_AND_SELDOM, ttl=10), OFTEN_AND_SELDOM, PRICES)
    assert isinstance(drop, ModelsToDrop)  # m0 stays already
    assert [each.model for each in drop.named] == ["m1"]
    assert drop.rest == 0
    assert drop.saves == pytest.approx((32 - 2 * 6) * month)  # k is 3 and 3 s of 1 MiB
    month = MONTH * HOUR / 103  # a load in the end, for the last request
    shared = candidate("on-demand", profile, OFTEN_AND_SELDOM, share=True)
    [pin] = pin_and_drop(shared, OFTEN_AND_SELDOM, PRICES)
    assert isinstance(pin, ModelsToPin)
    assert [each.model for each in pin.named] == ["m0"]  # a load for each second request, or 100 s beside the first
    assert pin.saves == pin.named[0].saves == pytest.approx((26 * 6 - 106) * month)


def test_a_model_that_is_requested_for_a_moment_is_not_to_be_pinned() -> None:
    """It pays to keep it through its only gap, and not for an hour."""
    arrivals = Arrivals([0.0, 10.0, 11.0, 3600.0], [0, 1, 1, 0])
    found = in_hindsight(different(1.0, 1.0), arrivals, PRICES)
    assert [each.timeout for each in found] == [0.0, float("inf")]
    assert [(each.is_always, each.is_never) for each in found] == [(False, True), (False, False)]


def test_theory_over_models_is_said_in_quantiles_of_more_than_five() -> None:
    """Sizes 1 to 6: k/m is the load's 3 s, and 3 for its caller divided by the size."""
    profile = different(*range(1, 7))
    arrivals = Arrivals([float(at) for at in range(60)], [*[0, 1] * 20, *[2] * 19, 3])

    assert not list(theory_over_models([profile], arrivals, PRICES, [THEORY] * 5))
    [found] = theory_over_models([profile], arrivals, PRICES, [THEORY] * 6)
    assert (found.loader, found.models, found.requested) == ("transformers", 6, 4)
    assert found.mib == Quantiles(least=1, lower_quartile=2, median=3, upper_quartile=5, most=6)
    assert list(dict(found.timeout_s).values()) == pytest.approx([3.5, 3.6, 3.75, 4.5, 6.0])
    assert found.break_even_per_hour is not None
    assert found.break_even_per_hour.least == pytest.approx(600)
    best = TimeoutQuantiles(least=0.0, lower_quartile=0.0, median="forever", upper_quartile="forever", most="forever")
    assert found.best_timeout_s == best
    assert (found.always, found.never) == (3, 1)  # m2 is requested in 18 of 59 s, which is enough


def test_the_trade_is_with_the_cheapest_of_the_strategy_that_has_fewer_cold_starts() -> None:
    """Requests each 20 s, for which holding costs 20 and a load 6."""
    profile, arrivals = different(1.0), Arrivals([20.0 * number for number in range(11)], [0] * 11)
    found = [candidate("keep-alive", profile, arrivals, ttl=ttl) for ttl in (0, 1, 15, 21)]
    found.append(candidate("persistent", profile, arrivals))
    traded = trade(found[0], found, PRICES)
    assert traded is not None
    assert (traded.label, traded.sibling) == ("keep-alive (ttl 0)", "keep-alive (ttl 21)")
    assert traded.saves_share == pytest.approx(1 - found[0].costs[0] / found[3].costs[0])
    assert (traded.cold_share, traded.sibling_cold_share) == pytest.approx((1.0, 1 / 11))
    assert (traded.cold_start, traded.cold_start_ms) == pytest.approx((6.0, 3000.0))
    assert trade(found[3], found, PRICES) is None
    assert trade(found[0], found[:2], PRICES) is None
