"""Every setting of a plan under every loader, simulated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..costs.prices import HOUR, Prices, Size
from .arrivals import Arrivals
from .bounds import clairvoyant
from .grid import settings
from .outcome import Outcome
from .plan_file import Planned
from .profile import Profile
from .setting import Setting
from .simulator import Server
from .targets import MET, MISSED, judged

SAME = 0.05  # avoidable costs that differ by a smaller share are the same: the simulator's error is larger
SEEDS = 5  # of draws, and of arrivals where they are drawn, under which an order has to hold
NEAREST = 5  # settings that are simulated so often: those next to the cheapest
FARTHEST = 2.0  # times its cost: no seed makes a more expensive one the cheapest


@dataclass(frozen=True)
class Candidate:
    """A setting under a loader."""

    label: str
    """The setting, and the loader if the plan has several."""
    profile: Profile
    setting: Setting
    result: dict[str, Any]
    targets: list[dict[str, Any]]
    """The result of `targets.judged`."""
    costs: tuple[float, ...]
    """Avoidable cost, money an hour: under the plan's seed, and near the cheapest under each of `SEEDS`."""
    halves: tuple[float, float]
    """The avoidable cost of each half of the requests."""

    most_mib: float | None = None
    """Of resident memory, start-up included; None if that was not measured."""

    @property
    def is_eligible(self) -> bool:
        """Whether it is known neither to exceed its capacity nor to miss a target."""
        return not self.result["capacity_exceeded"] and all(each["verdict"] != MISSED for each in self.targets)

    @property
    def meets_all(self) -> bool:
        """Whether it is known to meet every target."""
        return all(each["verdict"] == MET for each in self.targets)

    @property
    def complexity(self) -> tuple[int, bool]:
        """How many options it has, and whether it ever frees a model; the lower, the simpler."""
        decisions = self.setting.decisions()
        options = len(self.setting.options) + len(self.profile.options)
        return options, decisions.is_limited or decisions.has_keep


def simulate(
    setting: Setting,
    profile: Profile,
    arrivals: Arrivals,
    max_batch: int,
    seed: int,
    prices: Prices | None = None,
    resident: Sequence[int] = (),
) -> Outcome:
    """One setting under these arrivals; models with the indices `resident` have answered a request before them."""
    server = Server(setting.decisions(prices), list(profile.models), list(profile.models.values()), max_batch, seed)
    for model in resident:
        server.preload(model, answered=1)
    return server.run(arrivals.at, arrivals.asked)


@dataclass(frozen=True)
class TooLarge:
    """A setting that exceeds the plan's limit for memory, and so is not priced."""

    label: str
    most_mib: float


def candidates(planned: Planned) -> tuple[list[Candidate], list[TooLarge]]:
    """Every setting under every loader; without those that expire if the trace is replayed at another speed."""
    simulated = list(_once(planned))
    found = [each for each in simulated if isinstance(each, Candidate)]
    return _near_the_cheapest(planned, found), [each for each in simulated if isinstance(each, TooLarge)]


def _near_the_cheapest(planned: Planned, found: list[Candidate]) -> list[Candidate]:
    """These candidates; those that could be the cheapest under another seed are simulated under each of `SEEDS`."""
    nearest = sorted((each for each in pool_of(found)), key=lambda each: each.costs[0])
    limit = FARTHEST * nearest[0].costs[0] if nearest else 0.0
    again = [each.label for each in nearest[: 1 + NEAREST] if each.costs[0] <= limit]
    if len(again) < 2:
        return found
    arrivals = [planned.arrivals_of_round(number) for number in range(1, SEEDS)]
    return [_under_seeds(planned, each, arrivals) if each.label in again else each for each in found]


def pool_of(found: Sequence[Candidate]) -> list[Candidate]:
    """The candidates to choose from, the simplest first: those that meet every target, else those that are eligible; of
    those with the same result, the simplest.
    """
    eligible = sorted((each for each in found if each.is_eligible), key=lambda each: each.complexity)
    distinct: dict[tuple[Any, ...], Candidate] = {}
    for each in [each for each in eligible if each.meets_all] or eligible:
        distinct.setdefault((each.costs[0], each.halves, each.result["mean_mib"], each.result["mean_ms"]), each)
    return list(distinct.values())


def _once(planned: Planned) -> Iterator[Candidate | TooLarge]:
    arrivals = planned.arrivals
    halves = arrivals.halves()
    for profile in planned.profiles:
        models = list(profile.models.values())
        loader = f", {profile.shown_as}" if len(planned.profiles) > 1 else ""
        least = clairvoyant(profile, arrivals, planned.prices)
        for setting in settings(planned.settings, profile, planned.prices):
            whole, *parts = (_simulated(planned, setting, profile, each, 0) for each in (arrivals, *halves))
            if whole.least_keep is not None and not planned.on_its_own_clock:
                continue
            label, most = f"{setting.label}{loader}", _most_mib(profile, whole)
            if planned.limit_mib is not None and most is not None and most > planned.limit_mib:
                yield TooLarge(label, most)
                continue
            size, cores = _size(planned, profile, whole), whole.core_seconds(models) / whole.seconds
            result = whole.described(profile.base_mib, models, planned.prices, size)
            result |= {"cores": cores, "size": None if size is None else asdict(size)}
            result["capacity_exceeded"] |= size is not None and size.cpu < cores
            result["regret"] = whole.keep_alive_cost(models, planned.prices) / least if least else None
            cost, first, second = (_decided(planned, profile, each) for each in (whole, *parts))
            targets = judged(whole, planned.slo)
            yield Candidate(label, profile, setting, result, targets, (cost,), (first, second), most)


def _under_seeds(planned: Planned, candidate: Candidate, arrivals: Sequence[Arrivals]) -> Candidate:
    outcomes = (
        _simulated(planned, candidate.setting, candidate.profile, each, number)
        for number, each in enumerate(arrivals, 1)
    )
    others = (_decided(planned, candidate.profile, outcome) for outcome in outcomes)
    return replace(candidate, costs=(*candidate.costs, *others))


def _simulated(planned: Planned, setting: Setting, profile: Profile, arrivals: Arrivals, number: int) -> Outcome:
    return simulate(setting, profile, arrivals, planned.max_batch, planned.file.seed + number, planned.prices)


def _most_mib(profile: Profile, outcome: Outcome) -> float | None:
    return profile.resident.most(outcome.weights_mib) if profile.resident else None


def _size(planned: Planned, profile: Profile, outcome: Outcome) -> Size | None:
    """The one that is billed: the smallest that holds the server and has the cores that its requests take on average;
    the largest where none has; None where none is billed.
    """
    if not planned.prices.sizes:
        return None
    cores = outcome.core_seconds(list(profile.models.values())) / outcome.seconds
    return planned.prices.size_for(_most_mib(profile, outcome) or 0.0, cores) or planned.prices.sizes[-1]


def _decided(planned: Planned, profile: Profile, outcome: Outcome) -> float:
    """Avoidable cost, money an hour: without what every setting pays at least."""
    size = _size(planned, profile, outcome)
    money = outcome.money(profile.base_mib, list(profile.models.values()), planned.prices, size)
    return (money["total"] - _unavoidable(planned, outcome)) / outcome.seconds * HOUR


def _unavoidable(planned: Planned, outcome: Outcome) -> float:
    """The cost of the smallest empty server, or of the smallest size, and of each forward pass under the loader that
    makes it cheapest.
    """
    if planned.prices.sizes:
        return planned.prices.sizes[0].hour / HOUR * outcome.seconds
    models = zip(*(profile.models.values() for profile in planned.profiles), strict=True)
    least = [min(model.request_cpu for model in same) for same in models]
    forwards = sum(n * cpu for n, cpu in zip(outcome.requests, least, strict=True))
    empty = min(profile.base_mib for profile in planned.profiles)
    return planned.prices.holding(empty) * outcome.seconds + planned.prices.processor(forwards)
