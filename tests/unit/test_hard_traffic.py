"""How strategies decide on hard traffic, and what others pay for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from heapq import heapify, heappop, heappush
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.cli.conduct import conduct_text
from core.conformance import Conduct, ContractBroken, checks_of, conduct_of
from core.conformance.adversary import AT_ONCE, JUST, PATIENCE, gap_against, oppose
from core.conformance.rivals import BreakEven, Lru, break_even_money, clairvoyant_money, lru_cold_starts, replayed
from core.conformance.scenarios import Scenario, break_even_s, drift, hostile, model_of, narrow, thousand
from core.plugins import load_plugins
from core.residency.decisions import Decisions
from core.residency.replay import Replay
from strategies.keep_alive import KeepAlive

MIB = 1 << 20
BUILT_IN = load_plugins().strategies


@cache
def conduct(name: str, **options: Any) -> Conduct:
    """That of a built-in strategy; found out once."""
    return conduct_of(BUILT_IN[name], options)


MODELS = {"a": model_of(100 * MIB, 1.0), "b": model_of(100 * MIB, 7.0), "c": model_of(900 * MIB, 2.0)}
MOVES: dict[str, Callable[[float], float]] = {  # a gap, by the timeout that the adversary has seen; in units of k/m
    "at once": lambda timeout: AT_ONCE,
    "just before": lambda timeout: max(AT_ONCE, timeout - JUST),
    "just after": lambda timeout: timeout + JUST,
    "half": lambda timeout: timeout / 2 + JUST,
    "k/m": lambda timeout: 1 - JUST,
    "later than k/m": lambda timeout: 1 + JUST,
    "much later": lambda timeout: 5.0,
    "the worst": gap_against,
}
SERIES = st.lists(st.tuples(st.sampled_from(sorted(MOVES)), st.integers(1, 40)), min_size=1, max_size=8)


class Learning:
    """A replay of `keep-alive` that learns, and what each model paid for its gaps, and would have paid under k/m."""

    def __init__(self) -> None:
        self.paid, self.k_over_m = dict.fromkeys(MODELS, 0.0), dict.fromkeys(MODELS, 0.0)
        self._gaps: dict[str, tuple[float, float]] = {}
        self._begin(None)

    def _begin(self, state: str | None) -> None:
        self._decisions = Decisions(KeepAlive(ttl="learned"), "learned")
        if state is not None:
            self._decisions.restore(state)
        self._replay = Replay(self._decisions, MODELS)

    def restart(self) -> None:
        """Go on in another process, with what was learned; nothing is known of the gaps of that time."""
        self._gaps.clear()
        self._begin(self._decisions.state())

    def use(self, name: str, now: float) -> float:
        """Request a model. Returns the timeout that it has then."""
        unit = break_even_s(MODELS[name])
        if name in self._gaps:
            since, timeout = self._gaps[name]
            gap = (now - since) / unit
            self.paid[name] += gap if gap <= timeout else timeout + 1
            self.k_over_m[name] += gap if gap <= 1 else 2.0
        self._replay.request(name, now)
        timeout = max(0.0, self._replay.due(name) - now) / unit
        self._gaps[name] = now, timeout
        return timeout

    def oppose(self, moves: dict[str, list[str]], restarts_after: int) -> None:
        """Make each model's moves, in order of time."""
        left = {name: list(reversed(each)) for name, each in moves.items()}
        planned = [(i * AT_ONCE, name) for i, name in enumerate(moves)]
        heapify(planned)
        requests = 0
        while planned:
            now, name = heappop(planned)
            requests += 1
            timeout = self.use(name, now)
            if requests == restarts_after:
                self.restart()
            if left[name]:
                heappush(planned, (now + MOVES[left[name].pop()](timeout) * break_even_s(MODELS[name]), name))


@settings(deadline=None, max_examples=100)
@given(st.lists(SERIES, min_size=1, max_size=3), st.integers(1, 400))
def test_whoever_sees_the_timeouts_makes_a_model_pay_little_more_than_under_k_over_m(
    series: list[list[tuple[str, int]]], restarts_after: int
) -> None:
    learning = Learning()
    moves = {
        name: [move for move, times in each for _ in range(times)] for name, each in zip("abc", series, strict=False)
    }
    learning.oppose(moves, restarts_after)
    for name in moves:
        assert learning.paid[name] <= 1.1 * learning.k_over_m[name] + 7 + 1e-6


def test_the_adversary_makes_a_model_that_learns_pay_little_more_than_under_k_over_m() -> None:
    models = hostile().models
    learned = Replay(Decisions(KeepAlive(ttl="learned"), "learned"), models)
    requests = oppose(learned, models)
    learned.end(requests[-1][0])
    rival = Replay(Decisions(BreakEven(models), "k/m"), models)
    for now, name in requests:
        rival.request(name, now)
    rival.end(requests[-1][0])
    for name, model in models.items():
        paid, usual = (
            each.loads[name] * model.cold_start + each.held[name] * model.holding for each in (learned, rival)
        )
        assert paid <= 1.1 * usual + 7 * model.cold_start


@given(st.floats(0, 20), st.floats(AT_ONCE, PATIENCE))
def test_no_gap_costs_more_than_the_adversarys_compared_to_k_over_m(timeout: float, gap: float) -> None:
    def ratio(gap: float) -> float:
        return (gap if gap <= timeout else timeout + 1) / (gap if gap <= 1 else 2.0)

    assert ratio(gap) <= ratio(gap_against(timeout)) + 0.02


def test_k_over_m_is_at_its_worst_against_the_adversary() -> None:
    standing = conduct("keep-alive", ttl="auto").standings[0]
    assert standing.break_even == pytest.approx(1.0, abs=1e-3)
    assert standing.clairvoyant == pytest.approx(2.0, abs=1e-2)


@pytest.mark.parametrize("name", BUILT_IN)
def test_nobody_pays_less_than_a_clairvoyant(name: str) -> None:
    assert all(each.clairvoyant > 1 for each in conduct(name).standings)


@pytest.mark.parametrize("scenario", [drift(), thousand(), narrow()], ids=lambda scenario: scenario.name)
def test_what_others_pay_is_what_the_formulas_say(scenario: Scenario) -> None:
    least = clairvoyant_money(scenario)
    assert least < break_even_money(scenario) < 2 * least + sum(m.cold_start for m in scenario.models.values())
    budgeted = replayed(Decisions(Lru(None, scenario.budget), "lru"), scenario)
    assert lru_cold_starts(scenario, None, scenario.budget) == budgeted.cold_starts
    assert budgeted.most_bytes <= scenario.budget
    smaller = scenario.fitted(scenario.budget // 1000)
    assert clairvoyant_money(smaller) == pytest.approx(least / 1000, rel=0.1)  # loads are shorter, too


def test_the_catalogue_drifts() -> None:
    asked = [name for _, name in drift().requests]
    half = len(asked) // 2
    early, late = set(asked[: half // 2]), set(asked[-half // 2 :])
    assert early - late
    assert late - early
    assert len(thousand().models) == 1000
    sizes = sorted(model.nbytes for model in narrow().models.values())
    assert sizes[0] + sizes[1] > narrow().budget >= sizes[-1]


def test_the_best_of_rules_evicts_no_worse_than_the_least_recently_used() -> None:
    standings = [each for each in conduct("cached").standings if each.scenario != hostile().name]
    assert {each.limit for each in standings} == {None, "memory_budget", "capacity"}
    assert all(each.lru is not None and each.lru <= 1.03 for each in standings)


def test_learning_pays_less_than_k_over_m_where_nobody_opposes() -> None:
    standings = conduct("keep-alive", ttl="learned").standings
    assert all(each.break_even < 1 for each in standings if each.limit is None and each.scenario != hostile().name)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), [("cached", {}), ("keep-alive", {"ttl": "learned"})])
def test_a_decision_takes_microseconds(name: str, options: dict[str, Any]) -> None:
    assert max(conduct(name, **options).decision_s.values()) <= 50e-6


HEAD = "import pluggy\n\nclass Mine:\n    name = 'mine'\n"
TAIL = """
@pluggy.HookimplMarker("residency")
def register_strategies():
    return [Mine]
"""
NEWEST = "    def evict(self, candidates, now):\n        return list(candidates)[-1].model_id\n"
OPTION = "    def __init__(self, *, capacity: int = 3):\n        self.capacity = capacity\n"


def plugin(folder: Path, members: str) -> str:
    (folder / "mine.py").write_text(HEAD + members + TAIL)
    return str(folder / "mine.py")


def test_a_bad_strategy_is_seen_to_be_bad(tmp_path: Path) -> None:
    """It evicts what was used last."""
    found = conduct_of(load_plugins([plugin(tmp_path, OPTION + NEWEST)]).strategy("mine"))
    standings = {(each.scenario, each.limit): each for each in found.standings}
    by_the_option = standings["drifting catalogue", "capacity"]
    assert by_the_option.lru is not None
    assert by_the_option.lru > 1.5
    text = conduct_text(found)
    assert f"drifting catalogue    capacity  {by_the_option.clairvoyant:>15.2f}" in text
    assert "With 300 models a decision takes" in text


def test_one_that_keeps_for_good_is_seen_to_be_bad(tmp_path: Path) -> None:
    found = conduct_of(load_plugins([plugin(tmp_path, "    grid = {}\n")]).strategy("mine"))
    assert [each.lru for each in found.standings] == [None] * 3
    assert all(each.break_even > 2 for each in found.standings)
    assert "a decision takes" not in conduct_text(found)


def test_models_are_made_to_fit_a_budget_that_is_no_option(tmp_path: Path) -> None:
    found = conduct_of(load_plugins([plugin(tmp_path, "    memory_budget = 3 << 20\n")]).strategy("mine"))
    assert [each.lru for each in found.standings] == [1.0] * 4
    optional = {each.scenario: each for each in conduct("lru-cached").standings if each.limit == "memory_budget"}
    for each in found.standings[1:]:
        assert each.clairvoyant == pytest.approx(optional[each.scenario].clairvoyant, rel=0.05)


def test_a_fault_that_few_models_do_not_show_is_found(tmp_path: Path) -> None:
    members = "    def keep(self, model, now):\n        return 1 / (len(model.model_id) != 9)\n"  # such as model-100
    (check,) = [each for each in checks_of(plugin(tmp_path, members)) if "hard" in each.name]
    with pytest.raises(ContractBroken, match="keep fails in the scenario 'drifting catalogue': ZeroDivisionError"):
        check()


def test_a_known_strategy_is_checked_by_its_name() -> None:
    assert {str(check).partition(":")[0] for check in checks_of("cached", "onnxruntime")} == {
        "strategy cached",
        "loader onnxruntime",
    }
