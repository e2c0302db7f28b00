"""Which nodes are a model's homes: weighted rendezvous hashing, copies of hot models, and placement by rate and bytes.

Everybody who knows the nodes computes the same order of nodes for a model, without talking: `routing.lua` does so, too.
When a node goes, only its models move; when one comes, it takes its share from all others.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..config.cluster import Copies

Homes = tuple[str, ...]
Words = npt.NDArray[np.uint64]
FNV_OFFSET, FNV_PRIME, WORD = 0xCBF29CE484222325, 0x100000001B3, (1 << 64) - 1
FIRST_FACTOR, SECOND_FACTOR = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
CHOICES = 2  # nodes of its order among which a model has its home; a second choice makes the busiest node far less busy
# A move is a cold start: a model stays unless the other node has less load by this share, and by this much of its time.
DEAD_BAND, LEAST_GAIN = 0.2, 0.05
KEEP_COPY = 1.25  # a copy is given up when it is not needed at this multiple of the rate either
MAX_PASSES = 50
REMEMBERED = 1 << 16  # orders


class Demand(NamedTuple):
    """What is asked of a model: requests in a second, seconds that one keeps a node busy, and bytes in memory."""

    rate: float
    service_s: float
    nbytes: int

    @property
    def load(self) -> float:
        """The share of one node's time that it takes."""
        return self.rate * self.service_s


class NodeRoom(NamedTuple):
    """What a node can hold: its size relative to the others, and the bytes of models; None if that is not limited."""

    weight: float = 1.0
    budget: int | None = None


def order(model: str, weights: Mapping[str, float]) -> Homes:
    """All nodes, the model's first home first. A node of twice the weight comes first for twice as many models."""
    return _ranking(tuple(sorted(weights.items()))).order(model)


def homes_wanted(demand: Demand, copies: Copies) -> int:
    """How many homes a model needs, so that none spends more than `copies.busy` of its time on it."""
    return max(1, min(copies.max, math.ceil(demand.load / copies.busy)))


def place(
    demands: Mapping[str, Demand], nodes: Mapping[str, NodeRoom], copies: Copies, previous: Mapping[str, Homes]
) -> dict[str, Homes]:
    """The homes of each model in `demands`, given those that it had. The order of the mappings does not matter.

    A hot model has the first homes of its order. Any other model has one: where it was, or else the less loaded of the
    first two of its order. It moves when another node of these two is clearly less loaded, or when more frequent models
    have filled its node's budget and there is room elsewhere. What fits nowhere is the least requested.
    """
    if not nodes:
        return {}
    placement = _Placement(nodes)
    by_rate = sorted(demands, key=lambda model: (-demands[model].rate, model))
    for model in by_rate:
        demand = demands[model]
        before = tuple(name for name in previous.get(model, ()) if name in nodes)
        count = min(_count(demand, copies, len(before)), len(nodes))
        if count > 1:
            placement.add_hot(model, demand, count)
        else:
            placement.add(model, demand, before)
    for _ in range(MAX_PASSES):
        if not sum([placement.improve(model, demands[model]) for model in by_rate]):
            break
    return placement.homes


def _count(demand: Demand, copies: Copies, before: int) -> int:
    """How many homes a model gets that had some before."""
    wanted = homes_wanted(demand, copies)
    if before <= wanted:
        return wanted
    return min(before, homes_wanted(demand._replace(rate=demand.rate * KEEP_COPY), copies))


@dataclass
class _Placement:
    """A placement in the making. Models are added in the order of their rates, so that the tail finds no room."""

    nodes: Mapping[str, NodeRoom]
    homes: dict[str, Homes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._ranking = _ranking(tuple(sorted((name, room.weight) for name, room in self.nodes.items())))
        self._free = {name: math.inf if room.budget is None else room.budget for name, room in self.nodes.items()}
        self._loads = dict.fromkeys(self.nodes, 0.0)  # relative to the node's weight
        self._single: set[str] = set()
        self._tail: set[str] = set()  # found no room

    def add_hot(self, model: str, demand: Demand, count: int) -> None:
        """Give a model several homes: the first of its order that have room; without room, the first."""
        ranked = self._ranking.order(model)
        with_room = [name for name in ranked if self._has_room(name, demand)]
        homes = (with_room + [name for name in ranked if name not in with_room])[:count]
        self.homes[model] = tuple(sorted(homes, key=ranked.index))
        for name in homes:
            self._free[name] -= demand.nbytes
            self._put(name, demand.load / count)

    def add(self, model: str, demand: Demand, before: Homes) -> None:
        """Give a model one home."""
        self._single.add(model)
        ranked = self._ranking.order(model)
        preferred = self._by_load(before) + self._by_load(ranked[:CHOICES])
        home = self._room_for(demand, preferred, ranked)
        if home is None:
            self._tail.add(model)
            home = preferred[0]
        else:
            self._free[home] -= demand.nbytes
        self.homes[model] = (home,)
        self._put(home, demand.load)

    def improve(self, model: str, demand: Demand) -> bool:
        """Move a model with one home to where there is room for it, or to a node that is clearly less loaded."""
        if model not in self._single:
            return False
        (home,) = self.homes[model]
        ranked = self._ranking.order(model)
        other = self._by_load(ranked[:CHOICES])[0]
        if model in self._tail:
            found = self._room_for(demand, [home, other], ranked)
            if found is not None:  # a move has made room
                self._tail.remove(model)
                self._free[found] -= demand.nbytes
                self._move(model, demand, found)
                return True
        elif not self._has_room(other, demand):
            return False
        if not self._is_relieved(home, other, demand.load):
            return False
        if model not in self._tail:
            self._free[home] += demand.nbytes
            self._free[other] -= demand.nbytes
        self._move(model, demand, other)
        return True

    def _is_relieved(self, home: str, other: str, load: float) -> bool:
        """Whether `home` is clearly more loaded than `other`, and still not less after the load has moved there."""
        here, there = self._loads[home], self._loads[other]
        if load <= 0 or here - there < max(DEAD_BAND * here, LEAST_GAIN):
            return False
        return there + load / self.nodes[other].weight <= here - load / self.nodes[home].weight

    def _room_for(self, demand: Demand, preferred: Sequence[str], ranked: Homes) -> str | None:
        if demand.nbytes > max(self._free.values()):
            return None
        return next(name for name in (*preferred, *ranked) if self._has_room(name, demand))

    def _has_room(self, name: str, demand: Demand) -> bool:
        return demand.nbytes <= self._free[name]

    def _by_load(self, names: Collection[str]) -> list[str]:
        """The less loaded first; of equals, the first."""
        return sorted(names, key=self._loads.__getitem__)

    def _put(self, name: str, load: float) -> None:
        self._loads[name] += load / self.nodes[name].weight

    def _move(self, model: str, demand: Demand, to: str) -> None:
        (home,) = self.homes[model]
        self._put(home, -demand.load)
        self._put(to, demand.load)
        self.homes[model] = (to,)


class _Ranking:
    """The orders of nodes with these weights. It remembers those that were asked for."""

    def __init__(self, weights: tuple[tuple[str, float], ...]) -> None:
        self._names = [name for name, _ in weights]
        self._hashes = _finalise(np.array([_fnv1a(name) for name in self._names], np.uint64))
        self._weights = np.array([weight for _, weight in weights])
        self._orders: dict[str, Homes] = {}

    def order(self, model: str) -> Homes:
        known = self._orders.get(model)
        if known is None:
            if len(self._orders) >= REMEMBERED:
                self._orders.clear()
            known = self._orders[model] = self._compute(model)
        return known

    def _compute(self, model: str) -> Homes:
        hashes = _finalise(self._hashes ^ np.uint64(_fnv1a(model)))
        # 52 bits and a half are exact in a float, and never 0 or 1.
        uniform = ((hashes >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
        scores = self._weights / np.log(uniform)  # the best is the lowest; of equals, the first name
        return tuple(self._names[i] for i in np.argsort(scores, kind="stable"))


@lru_cache(16)
def _ranking(weights: tuple[tuple[str, float], ...]) -> _Ranking:
    return _Ranking(weights)


def _fnv1a(text: str) -> int:
    """FNV-1a, 64 bits: http://www.isthe.com/chongo/tech/comp/fnv/."""
    value = FNV_OFFSET
    for byte in text.encode():
        value = ((value ^ byte) * FNV_PRIME) & WORD
    return value


def _finalise(words: Words) -> Words:
    """The words with every bit depending on every bit, as in SplitMix64: FNV-1a alone is uneven in its high bits."""
    words = (words ^ (words >> np.uint64(30))) * FIRST_FACTOR
    words = (words ^ (words >> np.uint64(27))) * SECOND_FACTOR
    return words ^ (words >> np.uint64(31))
