"""How bursty arrivals affect two trials between which a run's answer changes: simulated from that run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from ..bench.traffic import Traffic
from ..bench.workload import Gamma, Open, Workload
from ..costs.economics import header_costs
from ..costs.prices import HOUR, Prices
from ..errors import ResidencyError, ResultsError
from ..plugins import load_plugins
from ..results.card import Bursts
from ..results.economics import BreakEven, SizePrice
from ..results.plan import OutcomeFigures
from ..results.summary import Summary
from ..stats.rounds import Run
from .arrivals import arrivals_of
from .outcome import SAME
from .profile import Profile, profiles
from .setting import Setting
from .simulator import Server

Kind = Gamma | Literal["poisson", "constant"]
BURSTS = Gamma(gamma=8)
REQUESTS = {"bursts": 2000, "constant": 200}  # the latter are evenly spaced, and all alike
SEED = 0
STEPS, CLOSE = 6, 0.02  # of the search for a break-even rate; it ends if the costs differ by no more than that share
WIDEST = 16.0  # a break-even rate is looked for within this factor of the card's


@dataclass(frozen=True)
class SimulatedTrial:
    """A trial of a run, in the form of a plan's setting."""

    setting: Setting
    profile: Profile
    prices: Prices
    size: SizePrice | None
    """The one that is billed."""
    max_batch: int

    def under(self, per_hour: float, kind: Kind) -> OutcomeFigures:
        """The result of requests of that kind and rate."""
        count = REQUESTS["constant" if kind == "constant" else "bursts"]
        names, models = list(self.profile.models), list(self.profile.models.values())
        workload = Workload(open=Open(rate=per_hour / HOUR, arrivals=kind, requests=count))
        arrivals = arrivals_of(Traffic(workload, tuple(names), 1, SEED))
        first, last = arrivals.at[0], arrivals.at[-1]
        # The rate of so few drawn requests is off by chance; these are scaled to exactly that rate.
        scale = (count - 1) / per_hour * HOUR / (last - first)
        server = Server(self.setting.decisions(self.prices), names, models, self.max_batch, SEED)
        outcome = server.run([(at - first) * scale for at in arrivals.at], arrivals.asked)
        return outcome.figures(self.profile.base_mib, models, self.prices, self.size)


@dataclass(frozen=True)
class TwoTrials:
    """Two trials, of which `low` is cheaper at low rates."""

    low: SimulatedTrial
    high: SimulatedTrial

    def longer_ms(self, per_hour: float, kind: Kind) -> float:
        """How much longer callers wait under `low`, on average."""
        return self.low.under(per_hour, kind).mean_ms - self.high.under(per_hour, kind).mean_ms

    def excess(self, per_hour: float, kind: Kind) -> float:
        """By how much `low` costs more, as a share of the cost of `high`."""
        return self.low.under(per_hour, kind).cost_per_hour / self.high.under(per_hour, kind).cost_per_hour - 1

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


def bursts(run: Run, summary: Summary) -> Bursts | None:
    """How bursts change the card's first break-even rate. None if the card has no such rate, if the workload has a rate
    of its own, or if the run did not measure what a load costs.
    """
    even = _break_even(summary)
    if even is None:
        return None
    try:
        trials = TwoTrials(_simulated_trial(run, even.cheaper_below), _simulated_trial(run, even.cheaper_above))
        return _bursts_of(trials, even, at=summary.rate * HOUR if summary.rate else even.per_hour / 2)
    except ResidencyError:
        return None


class CardRate(NamedTuple):
    """The break-even rate at which a card's answer changes, in requests an hour."""

    per_hour: float
    cheaper_below: str
    cheaper_above: str


def _break_even(summary: Summary) -> CardRate | None:
    """The break-even rate that is the nearest to the first rate at which the card's answer changes."""
    workload = summary.workload
    if summary.economics is None or (workload and not workload.closed):
        return None
    known = [(each, rate) for each in summary.economics.break_even if (rate := _card_rate(each)) is not None]
    for flip in summary.card.flips:
        one_of = [rate for each, rate in known if flip.what == "rate" and flip.to in (each.trial, each.against)]
        if one_of:
            return min(one_of, key=lambda rate: abs(rate.per_hour - flip.at))
    return None


def _card_rate(even: BreakEven) -> CardRate | None:
    if even.rate_per_hour is None or even.cheaper_below is None or even.cheaper_above is None:
        return None
    return CardRate(even.rate_per_hour, even.cheaper_below, even.cheaper_above)


def _simulated_trial(run: Run, label: str) -> SimulatedTrial:
    """The trial of that label. Raises ResidencyError if its loader's loads were not measured, if its strategy is not
    installed, or if its server is a cluster.

    A strategy from a file does not count as installed: whoever reads a report has not allowed that code to run.
    """
    spec = run.spec(label)
    if spec.cluster is not None:
        raise ResultsError(f"'{label}' is a cluster, which is not simulated as one server.")
    loader = spec.loader, spec.loader_options
    alike = [trial for trial in run.header.trials if (trial.loader, trial.loader_options) == loader]
    costs = header_costs(run)
    assert costs is not None  # or the run would have no break-even rate
    prices, [size] = costs.prices, [trial.size for trial in costs.trials if trial.label == label]
    [profile] = profiles(replace(run, header=run.header.model_copy(update={"trials": alike})), prices)
    setting = Setting(load_plugins().strategy(spec.strategy), spec.options)
    return SimulatedTrial(setting, profile, prices, size, run.header.max_batch)


def _bursts_of(trials: TwoTrials, even: CardRate, at: float) -> Bursts:
    return Bursts(
        cheaper_below=even.cheaper_below,
        cheaper_above=even.cheaper_above,
        burstiness=BURSTS.gamma,
        at=at,
        longer_ms=trials.longer_ms(at, BURSTS),
        alone_ms=trials.longer_ms(at, "constant"),
        flip=trials.flip(even.per_hour, BURSTS),
        alone_flip=trials.flip(even.per_hour, "constant"),
        near=even.per_hour,
        widest=WIDEST,
        same=SAME,
    )
