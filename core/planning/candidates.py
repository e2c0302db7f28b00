"""Every setting of a plan under every loader, simulated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from ..costs.prices import BYTES_PER_MIB, HOUR, Prices
from ..residency.decisions import Decisions
from ..results.economics import SizePrice
from ..results.plan import SettingFigures, SettingSpec
from ..results.plan_nodes import NodeFigures, NodesFigures
from .arrivals import Arrivals
from .bounds import clairvoyant
from .cluster import Cluster
from .grid import settings
from .nodes import PlanNodes
from .outcome import ByModel, Outcome
from .plan_file import PlanInputs
from .profile import ModelProfile, Profile
from .setting import Setting
from .simulator import Server
from .targets import judge

SEEDS = 5  # of draws, and of arrivals where they are drawn, under which an order has to hold
NEAREST = 5  # settings that are simulated so often: those next to the cheapest
FARTHEST = 2.0  # times its cost: no seed makes a more expensive one the cheapest


@dataclass(frozen=True)
class Candidate:
    """A setting under a loader."""

    profile: Profile
    setting: Setting
    figures: SettingFigures
    by_model: ByModel

    @property
    def label(self) -> str:
        return self.figures.label

    @property
    def costs(self) -> list[float]:
        """Avoidable cost, money an hour: under the plan's seed, and near the cheapest under each of `SEEDS`."""
        return self.figures.decides_per_hour

    @property
    def halves(self) -> tuple[float, float]:
        """The avoidable cost of each half of the requests."""
        return self.figures.first_half, self.figures.second_half

    @property
    def is_eligible(self) -> bool:
        """Whether it is known neither to exceed its capacity nor to miss a target."""
        return not self.figures.capacity_exceeded and all(each.verdict != "missed" for each in self.figures.targets)

    @property
    def meets_all(self) -> bool:
        """Whether it is known to meet every target."""
        return all(each.verdict == "met" for each in self.figures.targets)

    @property
    def complexity(self) -> tuple[int, bool]:
        """How many options it has, and whether it ever frees a model; the lower, the simpler."""
        decisions = self.setting.decisions()
        options = len(self.setting.options) + len(self.profile.options)
        return options, decisions.is_limited or decisions.has_keep


class Strategy(Protocol):
    """What can be simulated."""

    def decisions(self, prices: Prices | None = None) -> Decisions:
        """A strategy that has decided nothing yet."""


def simulate(
    setting: Strategy,
    profile: Profile,
    arrivals: Arrivals,
    max_batch: int,
    seed: int,
    prices: Prices | None = None,
    resident: Sequence[int] = (),
    nodes: PlanNodes | None = None,
) -> Outcome:
    """One setting under these arrivals; models with the indices `resident` have answered a request before them."""
    names, models = list(profile.models), list(profile.models.values())
    server: Server | Cluster
    if nodes is None or nodes.count == 1:
        server = Server(setting.decisions(prices), names, models, max_batch, seed)
    else:
        server = Cluster(partial(setting.decisions, prices), nodes, names, models, max_batch, seed)
    for model in resident:
        server.preload(model, answered=1)
    return server.run(arrivals.at, arrivals.asked)


@dataclass(frozen=True)
class TooLarge:
    """A setting that exceeds the plan's limit for memory, and so is not priced."""

    label: str
    most_mib: float


def candidates(inputs: PlanInputs) -> tuple[list[Candidate], list[TooLarge]]:
    """Every setting under every loader; without those that expire if the trace is replayed at another speed."""
    simulated = list(_simulate_once(inputs))
    found = [each for each in simulated if isinstance(each, Candidate)]
    return _near_the_cheapest(inputs, found), [each for each in simulated if isinstance(each, TooLarge)]


def _near_the_cheapest(inputs: PlanInputs, found: list[Candidate]) -> list[Candidate]:
    """These candidates; those that could be the cheapest under another seed are simulated under each of `SEEDS`."""
    nearest = sorted((each for each in pool_of(found)), key=lambda each: each.costs[0])
    limit = FARTHEST * nearest[0].costs[0] if nearest else 0.0
    again = [each.label for each in nearest[: 1 + NEAREST] if each.costs[0] <= limit]
    if len(again) < 2:
        return found
    arrivals = [inputs.arrivals_of_round(number) for number in range(1, SEEDS)]
    return [_under_seeds(inputs, each, arrivals) if each.label in again else each for each in found]


def pool_of(found: Sequence[Candidate]) -> list[Candidate]:
    """The candidates to choose from, the simplest first: those that meet every target, else those that are eligible; of
    those with the same result, the simplest.
    """
    eligible = sorted((each for each in found if each.is_eligible), key=lambda each: each.complexity)
    distinct: dict[tuple[float, ...], Candidate] = {}
    for each in [each for each in eligible if each.meets_all] or eligible:
        key = (each.costs[0], *each.halves, each.figures.mean_mib, each.figures.mean_ms)
        distinct.setdefault(key, each)
    return list(distinct.values())


def _simulate_once(inputs: PlanInputs) -> Iterator[Candidate | TooLarge]:
    arrivals = inputs.arrivals
    for profile in inputs.profiles:
        models = list(profile.models.values())
        loader = f", {profile.shown_as}" if len(inputs.profiles) > 1 else ""
        least = clairvoyant(profile, arrivals, inputs.prices)
        for setting in settings(inputs.settings, profile, inputs.prices):
            whole = simulate_for(inputs, setting, profile, arrivals)
            if whole.least_keep is not None and not inputs.on_its_own_clock:
                continue
            label, most = f"{setting.label}{loader}", most_mib(profile, whole)
            if inputs.limit_mib is not None and most is not None and most > inputs.limit_mib:
                yield TooLarge(label, most)
                continue
            regret = whole.keep_alive_cost(models, inputs.prices) / least if least else None
            figures = _figures(inputs, profile, setting, label, whole, regret)
            yield Candidate(profile, setting, figures, whole.by_model)


def _spec(label: str, setting: Setting, profile: Profile) -> SettingSpec:
    return SettingSpec(
        label=label,
        strategy=setting.strategy,
        route=setting.route,
        options=dict(setting.options),
        loader=profile.loader,
        loader_options=dict(profile.options),
    )


def _figures(
    inputs: PlanInputs,
    profile: Profile,
    setting: Setting,
    label: str,
    whole: Outcome,
    regret: float | None,
) -> SettingFigures:
    """The figures of the setting, from its outcome."""
    models = list(profile.models.values())
    first, second = whole.halves
    size, cores = _size(inputs, profile, whole), whole.busiest_cores(models)
    result = whole.figures(profile.base_mib, models, inputs.prices, size)
    exceeded = result.capacity_exceeded or (size is not None and size.cpu < cores)
    return SettingFigures(
        **dict(_spec(label, setting, profile)),
        **dict(result.model_copy(update={"capacity_exceeded": exceeded})),
        cores=cores,
        size=size,
        nodes=_nodes(whole, models, setting.decisions(inputs.prices)),
        regret=regret,
        most_mib=most_mib(profile, whole),
        targets=judge(whole, inputs.slo),
        decides_per_hour=[avoidable_cost(inputs, profile, whole)],
        first_half=avoidable_cost(inputs, profile, first),
        second_half=avoidable_cost(inputs, profile, second),
    )


def _nodes(outcome: Outcome, models: Sequence[ModelProfile], decisions: Decisions) -> NodesFigures | None:
    """What each of several nodes did."""
    if (nodes := outcome.nodes) is None:
        return None
    mean = sum(each.core_seconds for each in nodes.each) / len(nodes.each)
    usual = sum(model.weights_mib for model in models) / len(models)
    is_counted = decisions.budget is None and decisions.capacity is not None
    room = (decisions.capacity or 0) * usual if decisions.budget is None else decisions.budget / BYTES_PER_MIB
    return NodesFigures(
        busiest=max(each.core_seconds for each in nodes.each) / mean if mean else 1.0,
        room=outcome.weights_mib / room if room else None,
        capacity=decisions.capacity if is_counted else None,
        distinct=nodes.distinct,
        each=[
            NodeFigures(
                requests=each.requests,
                cold=each.cold,
                loads=each.loads,
                busy=each.busy,
                cores=each.core_seconds / outcome.seconds,
                most_mib=each.weights_mib,
                models=each.models,
            )
            for each in nodes.each
        ],
    )


def _under_seeds(inputs: PlanInputs, candidate: Candidate, arrivals: Sequence[Arrivals]) -> Candidate:
    outcomes = (
        simulate_for(inputs, candidate.setting, candidate.profile, each, number)
        for number, each in enumerate(arrivals, 1)
    )
    others = (avoidable_cost(inputs, candidate.profile, outcome) for outcome in outcomes)
    costs = {"decides_per_hour": [*candidate.costs, *others]}
    return replace(candidate, figures=candidate.figures.model_copy(update=costs))


def simulate_for(
    inputs: PlanInputs, setting: Strategy, profile: Profile, arrivals: Arrivals, number: int = 0
) -> Outcome:
    """The outcome of a setting under the plan's prices and batches, with the seed of that number."""
    file = inputs.file
    return simulate(setting, profile, arrivals, inputs.max_batch, file.seed + number, inputs.prices, (), file.nodes)


def most_mib(profile: Profile, outcome: Outcome) -> float | None:
    """The most resident memory of a server, start-up included; None if it was not measured."""
    return profile.resident.most(outcome.weights_mib) if profile.resident else None


def _size(inputs: PlanInputs, profile: Profile, outcome: Outcome) -> SizePrice | None:
    """The one that is billed: the smallest that holds the server and has the cores that its requests take on average;
    the largest where none has; None where none is billed.
    """
    if not inputs.prices.sizes:
        return None
    cores = outcome.busiest_cores(list(profile.models.values()))
    return inputs.prices.size_for(most_mib(profile, outcome) or 0.0, cores) or inputs.prices.sizes[-1]


def avoidable_cost(inputs: PlanInputs, profile: Profile, outcome: Outcome) -> float:
    """Avoidable cost, money an hour: without what every setting pays at least."""
    if not outcome.seconds:
        return 0.0
    size = _size(inputs, profile, outcome)
    money = outcome.money(profile.base_mib, list(profile.models.values()), inputs.prices, size)
    above = money.total - _unavoidable(inputs, outcome)  # below 0 only as far as draws differ from their mean
    return max(0.0, above) / outcome.seconds * HOUR


def _unavoidable(inputs: PlanInputs, outcome: Outcome) -> float:
    """The cost of the smallest empty servers, or of the smallest sizes, and for each request the CPU time of a forward
    pass and the waiting for a warm answer, each under the loader that makes it cheapest.
    """
    prices = inputs.prices
    models = list(zip(*(profile.models.values() for profile in inputs.profiles), strict=True))
    least = [(min(each.request_cpu for each in same), min(each.warm_s for each in same)) for same in models]
    forwards = sum(n * cpu for n, (cpu, _) in zip(outcome.requests, least, strict=True))
    warm = sum(n * seconds for n, (_, seconds) in zip(outcome.requests, least, strict=True))
    requests = prices.processor(forwards) + prices.waiting(warm)
    seconds = outcome.servers * outcome.seconds
    if prices.sizes:
        return prices.sizes[0].hour / HOUR * seconds + requests
    return prices.holding(min(profile.base_mib for profile in inputs.profiles)) * seconds + requests
