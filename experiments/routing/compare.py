"""What each way to route the same requests leads to: the simulator of plans, on drawn models and requests."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import JsonValue

from core.costs.prices import BYTES_PER_MIB
from core.errors import FileError
from core.planning.arrivals import Arrivals
from core.planning.candidates import simulate
from core.planning.nodes import PlanNodes
from core.planning.outcome import Outcome
from core.planning.profile import ModelProfile, Profile
from core.planning.setting import Setting
from core.plugins import Plugins, load_plugins
from core.stats.estimates import mean_interval

FORWARD_S, LOAD_S, BYTES_PER_S = 0.006, 0.010, 1.5e9
LOAD_CORES = 0.1  # that a load keeps busy
MEDIAN_MIB, SIGMA, LEAST_MIB, MOST_MIB = 120.0, 0.9, 20.0, 1500.0  # of the sizes, which are lognormal
ZIPF = 0.9
ROOM = 1 / 3  # of all bytes, or of all models, that all nodes together have room for
MAX_BATCH = 32
RAY = "multiplexed, LRU"
FITTING = "multiplexed, LRU, fewer models"  # so few that hardly any node exceeds its share of the bytes


class Way(NamedTuple):
    """A way to route, and what each node evicts by."""

    strategy: str
    nodes: Mapping[str, str]


WAYS = {
    "homes, cached": Way("cached", {}),
    "homes, LRU": Way("lru-cached", {}),
    "homes by hash, LRU": Way("lru-cached", {"placement": "hash"}),
    RAY: Way("lru-cached", {"routing": "multiplexed"}),
    FITTING: Way("lru-cached", {"routing": "multiplexed"}),
}


@dataclass(frozen=True)
class Case:
    """How many nodes, models and requests there are."""

    nodes: int
    models: int
    rate: float
    """Requests a second for each node."""
    requests: int

    def __str__(self) -> str:
        return f"{self.nodes} nodes, {self.models:,} models, {self.rate:g} requests/s a node"


class Cell(NamedTuple):
    """What one way led to under one seed; a row of results.csv."""

    nodes: int
    models: int
    rate: float
    requests: int
    seed: int
    way: str
    cold: float
    """The share of requests that waited for a load."""
    loads: float
    """For each request."""
    p50_ms: float
    p99_ms: float
    busiest: float
    """The CPU time of the busiest node, relative to the mean."""
    room: float
    """The most bytes on any node, relative to its share of the room for all models."""
    distinct: int
    """Models in the memory of any node at the end."""
    seconds: float
    """CPU time of the simulation."""

    @property
    def case(self) -> Case:
        return Case(self.nodes, self.models, self.rate, self.requests)


def compare(case: Case, seeds: int, ways: Iterable[str] = tuple(WAYS)) -> Iterator[Cell]:
    """Every way under every seed, on the same models and requests."""
    for seed in range(seeds):
        generator = np.random.default_rng(seed)
        drawn = np.exp(generator.normal(np.log(MEDIAN_MIB), SIGMA, case.models))
        profile = _profile(np.clip(drawn, LEAST_MIB, MOST_MIB).tolist())
        weights = np.arange(1, case.models + 1) ** -ZIPF
        popular = generator.permutation(case.models)
        asked = popular[generator.choice(case.models, case.requests, p=weights / weights.sum())]
        at = np.cumsum(generator.exponential(1 / (case.rate * case.nodes), case.requests))
        arrivals = Arrivals(at.tolist(), asked.tolist()).from_the_first()
        room = 1.0  # that Ray's rule takes, if as many models fit as would fit on average
        for name in ways:
            cell = _cell(case, seed, name, profile, arrivals, room)
            room = cell.room if name == RAY else 1.0
            yield cell


def _cell(case: Case, seed: int, name: str, profile: Profile, arrivals: Arrivals, too_many: float) -> Cell:
    """`too_many`: by what the number of models is divided, where it is limited."""
    way, mib = WAYS[name], [model.weights_mib for model in profile.models.values()]
    budget = max(ROOM * sum(mib) / case.nodes, *mib)
    is_counted = way.nodes.get("routing") == "multiplexed"
    count = max(1, round(ROOM * case.models / case.nodes / too_many))
    options: dict[str, JsonValue] = (
        {"capacity": count} if is_counted else {"memory_budget": math.ceil(budget * BYTES_PER_MIB)}
    )
    setting = Setting(_plugins().strategy(way.strategy), options)
    nodes = PlanNodes.model_validate({"count": case.nodes, **way.nodes})
    began = time.process_time()
    outcome = simulate(setting, profile, arrivals, MAX_BATCH, seed, nodes=nodes)
    seconds = time.process_time() - began
    assert outcome.nodes is not None
    work = [each.core_seconds for each in outcome.nodes.each]
    return Cell(
        **vars(case),
        seed=seed,
        way=name,
        cold=outcome.cold / case.requests,
        loads=sum(outcome.loads) / case.requests,
        p50_ms=_milliseconds(outcome, 0.5),
        p99_ms=_milliseconds(outcome, 0.99),
        busiest=max(work) / float(np.mean(work)),
        room=outcome.weights_mib / budget,
        distinct=outcome.nodes.distinct,
        seconds=seconds,
    )


def _profile(sizes: Sequence[float]) -> Profile:
    return Profile("drawn", {}, 0.0, {f"m{number}": _model(mib) for number, mib in enumerate(sizes)}, ())


def _model(mib: float) -> ModelProfile:
    load = LOAD_S + mib * BYTES_PER_MIB / BYTES_PER_S
    return ModelProfile(
        warm=(FORWARD_S,),
        first=(FORWARD_S,),
        load=(load,),
        unload=0.0,
        further=FORWARD_S,  # a batch saves nothing
        around=0.0,
        around_cold=0.0,
        weights_mib=mib,
        mib=mib,
        request_cpu=FORWARD_S,
        load_cpu=LOAD_CORES * load,
    )


def _milliseconds(outcome: Outcome, share: float) -> float:
    return float(np.quantile(outcome.latencies, share)) * 1e3


@cache
def _plugins() -> Plugins:
    return load_plugins()


class Difference(NamedTuple):
    """By how much a way differs from Ray's rule on average, relative to it, with the 95 % interval over seeds."""

    mean: float
    low: float
    high: float


def difference(cells: Iterable[Cell], way: str, figure: str) -> Difference | None:
    """The difference in a figure of a case's cells, paired by seed; None below two seeds."""
    values = {(cell.seed, cell.way): float(getattr(cell, figure)) for cell in cells}
    seeds = sorted({seed for seed, _ in values})
    ratios = [values[seed, way] / values[seed, RAY] - 1 for seed in seeds if values[seed, RAY]]
    interval = mean_interval(ratios)
    return None if interval is None else Difference(float(np.mean(ratios)), *interval)


def write(cells: Sequence[Cell], path: Path) -> None:
    """Write results.csv."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(Cell._fields)
        rows.writerows([f"{each:.6g}" if isinstance(each, float) else each for each in cell] for cell in cells)


def read(path: Path) -> list[Cell]:
    """The cells of a results.csv. Raises FileError."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [_read_cell(row) for row in csv.DictReader(file)]
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}.") from error
    except (KeyError, TypeError, ValueError) as error:
        columns = ", ".join(Cell._fields)
        raise FileError(f"{path}: is not a results.csv of this command, with the columns {columns}.") from error


def _read_cell(row: Mapping[str, str]) -> Cell:
    return Cell(
        nodes=int(row["nodes"]),
        models=int(row["models"]),
        rate=float(row["rate"]),
        requests=int(row["requests"]),
        seed=int(row["seed"]),
        way=row["way"],
        cold=float(row["cold"]),
        loads=float(row["loads"]),
        p50_ms=float(row["p50_ms"]),
        p99_ms=float(row["p99_ms"]),
        busiest=float(row["busiest"]),
        room=float(row["room"]),
        distinct=int(row["distinct"]),
        seconds=float(row["seconds"]),
    )
