"""What callers in bursts would see of two trials between which a run's answer flips: simulated from that run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from ..bench.traffic import Traffic
from ..bench.workload import Gamma, Open, Workload
from ..decide.amounts import rate
from ..decide.economics import header_costs
from ..decide.prices import HOUR, Prices, Size
from ..decide.rounds import Run
from ..decide.verdicts import milliseconds
from ..errors import ResidencyError
from ..plugins import load_plugins
from .arrivals import arrivals_of
from .profile import Profile, profiles
from .server import Server
from .setting import Setting

Kind = Gamma | Literal["poisson", "constant"]
BURSTS = Gamma(gamma=8)
REQUESTS = {"bursts": 2000, "constant": 200}  # the latter come one by one, and are all alike
SEED = 0
STEPS, CLOSE = 6, 0.02  # of the search for a flip; it ends where both costs differ by no more than that share
SAME = 0.05  # of a rate: the simulator knows no more
WIDEST = 16.0  # times what the card says, or as small a part of it: where a flip is looked for


@dataclass(frozen=True)
class Simulated:
    """A trial of a run, as a plan has it."""

    setting: Setting
    profile: Profile
    prices: Prices
    size: Size | None
    """The one that is billed."""
    max_batch: int

    def under(self, per_hour: float, kind: Kind) -> dict[str, Any]:
        """What comes of requests of that kind and rate, as a plan's row says it."""
        count = REQUESTS["constant" if kind == "constant" else "bursts"]
        names, models = list(self.profile.models), list(self.profile.models.values())
        workload = Workload(open=Open(rate=per_hour / HOUR, arrivals=kind, requests=count))
        arrivals = arrivals_of(Traffic(workload, tuple(names), 1, SEED))
        first, last = arrivals.at[0], arrivals.at[-1]
        # So few of them come at another rate than they are drawn for, by chance; these come at just that one.
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
        """What `low` costs more, as a share of what `high` costs."""
        costs = [each.under(per_hour, kind)["cost_per_hour"] for each in (self.low, self.high)]
        return float(costs[0] / costs[1] - 1)

    def flip(self, near: float, kind: Kind) -> float | None:
        """The rate from which `high` costs less; None where there is none far and wide of `near`."""
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
    """Of the card's first flip in the rate, as summary.json has it: at `at` requests an hour callers in bursts wait
    `longer_ms`, and those who come one by one `alone_ms`, under the trial that is cheaper at low rates. For them it
    flips at `flip`, for the others at `alone_flip` in the simulator. None where nothing flips, where the workload has
    a rate of its own, or where the run does not tell what a load costs.
    """
    pair = _break_even(summary)
    if pair is None:
        return None
    try:
        low, high = (_simulated(run, pair[key]) for key in ("cheaper_below", "cheaper_above"))
        at = summary["rate"] * HOUR if summary["rate"] else pair["rate_per_hour"] / 2
        return _described(Pair(low, high), pair, at, half=not summary["rate"])
    except ResidencyError:
        return None


def _break_even(summary: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The pair of trials whose costs are the same where the card flips."""
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
    """Raises ResidencyError where its loader's loads were not measured, or its strategy is not installed.

    A strategy whose code is a file is not: whoever reads a report has not asked for that code to run.
    """
    [spec] = [trial for trial in run.header["trials"] if trial["label"] == label]
    alike = [
        trial for trial in run.header["trials"] if all(trial[key] == spec[key] for key in ("loader", "loader_options"))
    ]
    costs = header_costs(run)
    assert costs is not None  # or the run would have no break-even rate
    prices, [size] = costs.prices, [trial.size for trial in costs.trials if trial.label == label]
    [profile] = profiles(replace(run, header=run.header | {"trials": alike}), prices)
    setting = Setting(load_plugins().strategy(spec["strategy"]), spec["options"])
    batching = run.header.get("batching", "off")
    return Simulated(setting, profile, prices, size, 1 if batching == "off" else int(batching["max_batch_size"]))


def _described(pair: Pair, even: Mapping[str, Any], at: float, *, half: bool) -> dict[str, Any]:
    """`half`: of the rate at which the card flips."""
    longer, alone = (pair.longer_ms(at, kind) for kind in (BURSTS, "constant"))
    flip, alone_flip = (pair.flip(even["rate_per_hour"], kind) for kind in (BURSTS, "constant"))
    sentence = (
        f"Callers in bursts (simulated, with a squared coefficient of variation of {BURSTS.gamma:g}) wait"
        f" on average {_waits(longer)} under {even['cheaper_below']} than under {even['cheaper_above']} at"
        f" {'half of that rate' if half else rate(at)}, where callers who come one by one wait {_waits(alone)}"
        f"{_flips(flip, alone_flip)}."
    )
    figures = {"at": at, "longer_ms": longer, "alone_ms": alone, "flip": flip, "alone_flip": alone_flip}
    return figures | {"sentence": sentence}


def _waits(ms: float) -> str:
    return f"{milliseconds(abs(ms))} {'more' if ms >= 0 else 'less'}"


def _flips(flip: float | None, alone_flip: float | None) -> str:
    """Where it flips for bursts, relative to where it does for the others: both are the simulator's, whose prices of
    memory and loads need not be the card's to a digit.
    """
    if alone_flip is None:
        return ""
    if flip is None:
        return "; for them it flips nowhere near the rate of the others"
    moved = flip / alone_flip
    return f"; for them it flips at {'' if abs(moved - 1) < SAME else f'about {moved:.0%} of '}the rate of the others"
