"""What each policy pays for one traffic: the real strategies, on requests that are answered at once."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from core.costs.prices import BYTES_PER_MIB, FARGATE, MIB_PER_GIB, Prices
from core.errors import FileError, ResidencyError
from core.planning.timeouts import clairvoyant_cost
from core.plugins import Plugins, load_plugins
from core.residency.decisions import Decisions
from core.residency.replay import Replay, ReplayedModel
from experiments.policies.traffic import Traffic

BUDGETS = (0.05, 0.15, 0.4)  # of the bytes of all models; at least the largest one
RULES = ("best", "sieve", "aged-gdsf")
AGAINST_AUTO, AGAINST_LRU = 1.01, 1.03  # the policies may cost at most so many times as much
CLAIRVOYANT, AUTO, LEARNED, LRU, BEST = "clairvoyant", "auto", "learned", "lru", "best"


class Costs(NamedTuple):
    """How long a load takes, and what waiting for it costs."""

    name: str
    seconds: float
    seconds_per_gib: float
    waiting_hour: float

    def model(self, mib: float) -> ReplayedModel:
        """A model of that size, with its costs at Fargate's prices. A load keeps one core busy."""
        prices = Prices(
            memory_gib_hour=FARGATE["memory_gib_hour"],
            cpu_hour=FARGATE["cpu_hour"],
            latency_hour=self.waiting_hour,
            charge="pss",
            billing="average",
        )
        load = self.seconds + self.seconds_per_gib * mib / MIB_PER_GIB
        cold_start = prices.cold_start(processor=load, waiting=load, load=load, mib=mib)
        return ReplayedModel(round(mib * BYTES_PER_MIB), load, load, prices.holding(mib), cold_start)


COSTS = (Costs("A", 0.02, 0.15, 0), Costs("B", 0.05, 0.8, 1), Costs("C", 1, 8, 1))


class Cell(NamedTuple):
    """What one policy paid; a row of results.csv."""

    traffic: str
    requests: int
    models: int
    costs: str
    budget: float
    """The share of all bytes that fits into memory; 1 if memory is unlimited and paid for as it is held."""
    policy: str
    money: float
    """With unlimited memory, of holding and of cold starts; with a budget, of cold starts."""
    cold: float
    """The share of requests that waited for a load."""


class Ratios(NamedTuple):
    """The cells that differ in their policy only."""

    traffic: str
    costs: str
    budget: float
    cells: Mapping[str, Cell]

    def of(self, policy: str, base: str) -> float:
        """The cost under the policy, divided by that under the base."""
        return self.cells[policy].money / self.cells[base].money

    @property
    def excess(self) -> str | None:
        """By how much the policy exceeds its bound, as a sentence; None if it does not."""
        policy, base, most = (BEST, LRU, AGAINST_LRU) if LRU in self.cells else (LEARNED, AUTO, AGAINST_AUTO)
        ratio = self.of(policy, base)
        if ratio <= most:
            return None
        where = f"{self.traffic}, costs {self.costs}" + (f", budget {self.budget:.0%}" if self.budget < 1 else "")
        return f"{where}: {policy} costs {ratio:.3f} × {base}, more than {most} ×."


def compare(traffic: Traffic) -> Iterator[Cell]:
    """All cells of one traffic."""
    for costs in COSTS:
        yield from timeouts(traffic, costs)
    for budget in BUDGETS:
        yield from evictions(traffic, COSTS[-1], budget)


def timeouts(traffic: Traffic, costs: Costs) -> Iterator[Cell]:
    """The cells where memory is paid for while models are held: each timeout, and the least possible cost."""
    models = {name: costs.model(mib) for name, mib in traffic.mib.items()}
    cell = Cell(traffic.name, len(traffic.at), len(models), costs.name, 1.0, CLAIRVOYANT, 0.0, 0.0)
    yield _clairvoyant(cell, traffic, models)
    for ttl in (AUTO, LEARNED):
        replay, cold = _replay("keep-alive", traffic, models, ttl=ttl, latency_hour=costs.waiting_hour)
        yield cell._replace(policy=ttl, money=replay.holding + replay.cold_starts, cold=cold)


def evictions(traffic: Traffic, costs: Costs, share: float) -> Iterator[Cell]:
    """The cells where there is memory for a share of all bytes: LRU and the other rules."""
    models = {name: costs.model(mib) for name, mib in traffic.mib.items()}
    sizes = [model.nbytes for model in models.values()]
    budget = max(round(sum(sizes) * share), *sizes, 0)
    runs: dict[str, tuple[str, dict[str, Any]]] = {LRU: ("lru-cached", {})}
    runs |= {rule: ("cached", {"evict": rule, "latency_hour": costs.waiting_hour}) for rule in RULES}
    for policy, (strategy, options) in runs.items():
        replay, cold = _replay(strategy, traffic, models, memory_budget=budget, **options)
        yield Cell(traffic.name, len(traffic.at), len(models), costs.name, share, policy, replay.cold_starts, cold)


def _replay(
    strategy: str, traffic: Traffic, models: Mapping[str, ReplayedModel], **options: Any
) -> tuple[Replay, float]:
    """The requests through a strategy, and the share of them that was cold. Raises ResidencyError if it fails."""
    decisions = Decisions(_plugins().strategies[strategy].cls(**options), strategy)
    replay = Replay(decisions, models)
    cold = sum(replay.request(model, at) for at, model in zip(traffic.at, traffic.asked, strict=True))
    replay.end(traffic.at[-1])
    if decisions.faults:
        raise ResidencyError(f"The strategy '{strategy}' failed: {decisions.reasons}.")
    return replay, cold / len(traffic.at)


@cache
def _plugins() -> Plugins:
    return load_plugins()


def _clairvoyant(cell: Cell, traffic: Traffic, models: Mapping[str, ReplayedModel]) -> Cell:
    """The least possible cost: each model stays until its next request if that costs less than a cold start."""
    times: dict[str, list[float]] = defaultdict(list)
    for at, model in zip(traffic.at, traffic.asked, strict=True):
        times[model].append(at)
    money, cold = 0.0, 0
    for name, requested in times.items():
        gaps, m, k = np.diff(requested), models[name].holding, models[name].cold_start
        money += clairvoyant_cost(gaps, m, k)
        cold += 1 + int((gaps * m > k).sum())
    return cell._replace(money=money, cold=cold / len(traffic.at))


def ratios(cells: Iterable[Cell]) -> list[Ratios]:
    """The cells of each traffic, costs and budget together, in the order in which they come."""
    found: dict[tuple[str, str, float], dict[str, Cell]] = defaultdict(dict)
    for cell in cells:
        found[cell.traffic, cell.costs, cell.budget][cell.policy] = cell
    return [Ratios(*key, policies) for key, policies in found.items()]


def write(cells: Sequence[Cell], path: Path) -> None:
    """Write results.csv."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(Cell._fields)
        rows.writerows((*cell[:6], f"{cell.money:.6g}", f"{cell.cold:.6f}") for cell in cells)


def read(path: Path) -> list[Cell]:
    """The cells of a results.csv. Raises FileError."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [_cell(row) for row in csv.DictReader(file)]
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}.") from error
    except (KeyError, TypeError, ValueError) as error:
        columns = ", ".join(Cell._fields)
        raise FileError(f"{path}: is not a results.csv of this command, with the columns {columns}.") from error


def _cell(row: Mapping[str, str]) -> Cell:
    return Cell(
        traffic=row["traffic"],
        requests=int(row["requests"]),
        models=int(row["models"]),
        costs=row["costs"],
        budget=float(row["budget"]),
        policy=row["policy"],
        money=float(row["money"]),
        cold=float(row["cold"]),
    )
