"""How bursty arrivals affect two trials between which a run's answer changes: simulated from that run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from ..bench.traffic import Traffic
from ..bench.workload import Gamma, Open, Workload
from ..costs.economics import header_costs
from ..costs.prices import HOUR, Prices, Size
from ..errors import ResidencyError
from ..plugins import load_plugins
from ..report.format import milliseconds, rate
from ..stats.rounds import Run
from .arrivals import arrivals_of
from .profile import Profile, profiles
from .setting import Setting
from .simulator import Server

Kind = Gamma | Literal["poisson", "constant"]
BURSTS = Gamma(gamma=8)
REQUESTS = {"bursts": 2000, "constant": 200}  # the latter are evenly spaced, and all alike
SEED = 0
STEPS, CLOSE = 6, 0.02  # of the search for a break-even rate; it ends if the costs differ by no more than that share
SAME = 0.05  # of a rate: the simulator is no more accurate
WIDEST = 16.0  # a break-even rate is looked for within this factor of the card's


@dataclass(frozen=True)
class Simulated:
    """A trial of a run, in the form of a plan's setting."""

    setting: Setting
    profile: Profile
    prices: Prices
    size: Size | None
    """The one that is billed."""
    max_batch: int

    def under(self, per_hour: float, kind: Kind) -> dict[str, Any]:
        """The result of requests of that kind and rate, in the form of a plan's row."""
        count = REQUESTS["constant" if kind == "constant" else "bursts"]
        names, models = list(self.profile.models), list(self.profile.models.values())
        workload = Workload(open=Open(rate=per_hour / HOUR, arrivals=kind, requests=count))
        arrivals = arrivals_of(Traffic(workload, tuple(names), 1, SEED))
        first, last = arrivals.at[0], arrivals.at[-1]
        # The rate of so few drawn requests is off by chance; these are scaled to exactly that rate.
        scale = (count - 1) / per_hour * HOUR / (last - first)
        server = Server(self.setting.decisions(self.prices), names, models, self.max_batch, SEED)
        outcome = server.run([(at - first) * scale for at in arrivals.at], arrivals.asked)
        return outcome.described(self.profile.base_mib, models, self.prices, self.size)


@dataclass(frozen=True)
class Pair:
    """Two trials, of which `low` is cheaper at low rates."""

    low: Simulated
    high: Simulated

    def longer_ms(self, per_hour: float, kind: Kind) -> float:
        """How much longer callers wait under `low`, on average."""
        return float(self.low.under(per_hour, kind)["mean_ms"] - self.high.under(per_hour, kind)["mean_ms"])

    def excess(self, per_hour: float, kind: Kind) -> float:
        """By how much `low` costs more, as a share of the cost of `high`."""
        costs = [each.under(per_hour, kind)["cost_per_hour"] for each in (self.low, self.high)]
        return float(costs[0] / costs[1] - 1)

    def flip(self, near: float, kind: Kind) -> float | None:
        """The rate above which `high` costs less; None if there is none within a factor of `WIDEST` of `near`."""
        below, above = near / 2, near * 1.5
        less, more = self.excess(below, kind), self.excess(above, kind)
        if less >= 0:
            below = near / WIDEST
            less = self.excess(below, kind)
        if more <= 0:
            above = near * WIDEST
            more = self.excess(above, kind)
        if less >= 0 or more <= 0:
            return None
        middle = near
        for _ in range(STEPS):
            middle = below + (above - below) * less / (less - more)  # the excess is about a line
            found = self.excess(middle, kind)
            if abs(found) <= CLOSE * (more - less):
                break
            below, less, above, more = (middle, found, above, more) if found < 0 else (below, less, middle, found)
        return middle


def bursts(run: Run, summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """How bursts change the card's first break-even rate, as in summary.json. At `at` requests an hour, under the trial
    that is cheaper at low rates, callers wait `longer_ms` longer if they come in bursts, and `alone_ms` if they are
    evenly spaced. The simulated break-even rates are `flip` and `alone_flip`. None if the card has no such rate, if the
    workload has a rate of its own, or if the run did not measure what a load costs.
    """
    pair = _break_even(summary)
    if pair is None:
        return None
    try:
        low, high = (_simulated(run, pair[key]) for key in ("cheaper_below", "cheaper_above"))
        at = summary["rate"] * HOUR if summary["rate"] else pair["rate_per_hour"] / 2
        return _described(Pair(low, high), pair, at)
    except ResidencyError:
        return None


def _break_even(summary: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The pair of trials whose costs are the same at the rate at which the card's answer changes."""
    workload = summary["workload"]
    if summary["economics"] is None or (workload and not workload.get("closed")):
        return None
    pairs: list[Mapping[str, Any]] = [
        pair for pair in summary["economics"]["break_even"] if pair["rate_per_hour"] is not None
    ]
    for flip in summary["card"]["flips"]:
        one_of = [pair for pair in pairs if flip["what"] == "rate" and flip["to"] in (pair["trial"], pair["against"])]
        if one_of:
            return min(one_of, key=lambda pair: abs(float(pair["rate_per_hour"] - flip["at"])))
    return None


def _simulated(run: Run, label: str) -> Simulated:
    """The trial of that label. Raises ResidencyError if its loader's loads were not measured, or if its strategy is not
    installed.

    A strategy from a file does not count as installed: whoever reads a report has not allowed that code to run.
    """
    spec = run.spec(label)
    loader = spec.loader, spec.loader_options
    alike = [trial for trial in run.header.trials if (trial.loader, trial.loader_options) == loader]
    costs = header_costs(run)
    assert costs is not None  # or the run would have no break-even rate
    prices, [size] = costs.prices, [trial.size for trial in costs.trials if trial.label == label]
    [profile] = profiles(replace(run, header=run.header.model_copy(update={"trials": alike})), prices)
    setting = Setting(load_plugins().strategy(spec.strategy), spec.options)
    return Simulated(setting, profile, prices, size, run.header.max_batch)


def _described(pair: Pair, even: Mapping[str, Any], at: float) -> dict[str, Any]:
    near = float(even["rate_per_hour"])
    longer, alone = (pair.longer_ms(at, kind) for kind in (BURSTS, "constant"))
    flip, alone_flip = (pair.flip(near, kind) for kind in (BURSTS, "constant"))
    sentence = (
        f"With bursty arrivals (simulated, squared coefficient of variation of the gaps {BURSTS.gamma:g}) at"
        f" {rate(at)}, callers wait {_longer(longer)} on average under {even['cheaper_below']} than under"
        f" {even['cheaper_above']}; with evenly spaced arrivals, {_longer(alone)}.{_flips(near, flip, alone_flip)}"
    )
    figures = {"at": at, "longer_ms": longer, "alone_ms": alone, "flip": flip, "alone_flip": alone_flip}
    return figures | {"sentence": sentence}


def _longer(ms: float) -> str:
    return f"{milliseconds(abs(ms))} {'longer' if ms >= 0 else 'less'}"


def _flips(near: float, flip: float | None, alone_flip: float | None) -> str:
    """The break-even rate for bursts, relative to that for evenly spaced arrivals. Both are the simulator's, whose
    prices of memory and loads need not be exactly the card's.
    """
    if alone_flip is None:
        return ""
    if flip is None:
        return f" For bursts, no break-even rate was found within a factor of {WIDEST:g} of {rate(near)}."
    moved = flip / alone_flip
    share = f"within {SAME:.0%} of" if abs(moved - 1) < SAME else f"about {moved:.0%} of"
    return f" The break-even rate for bursts is {share} the one for evenly spaced arrivals."
