"""Which node a request goes to: to a home of its model, or where Ray Serve's multiplexing sends it."""

from __future__ import annotations

import math
import random
from collections import Counter, deque
from collections.abc import Sequence
from typing import Protocol

from ..cluster.homes import Demand, Homes, NodeRoom, order, place
from ..config.cluster import Copies
from .nodes import Catalogue, Node, PlanNodes

# As in core/cluster/placer.py and rates.py, but for MOST_PLACEMENTS.
PERIOD = 5.0  # seconds between two placements
MOST_PLACEMENTS = 500  # in a plan: they take time, and in a long one rates change over hours
HALF_LIFE = 6  # periods after which a request counts for half
FORGOTTEN = 1e-4  # requests a second; a model that is asked for less often has the home of its hash
MOST_MOVES = 8  # in a period, of models that are in memory
CROWDED = 2  # as in core/cluster/routing.lua
VIEW_S = 0.3  # how old Ray's view of the models in memory is, as measured
LOOK_S = 0.1  # between two looks at them: as often as a replica reports


class Router(Protocol):
    """Chooses a node for each request."""

    def node_for(self, model: int, now: float) -> int:
        """The index of the node that a request for this model, which arrives now, goes to."""


class HomesRouter:
    """The balancer, as in core/cluster/routing.lua."""

    def __init__(self, nodes: Sequence[Node], chosen: PlanNodes, known: Catalogue, placer: Placer | None) -> None:
        self._nodes, self._queue, self._known, self._placer = nodes, chosen.queue, known, placer
        names = names_of(nodes)
        self._weights = dict.fromkeys(names, 1.0)
        self._number = {name: number for number, name in enumerate(names)}
        self._orders: dict[int, Homes] = {}

    def node_for(self, model: int, now: float) -> int:
        nodes, homes = self._nodes, None
        if self._placer is not None:
            homes = self._placer.homes(model, now)
        if homes is None:
            homes = (self._number[self._order(model)[0]],)
        queues = [nodes[home].queue_at(now) for home in homes]
        if (least := min(queues)) < self._queue:
            return homes[queues.index(least)]
        # Where all nodes are busy, none is relieved by another one that loads its models, too.
        everywhere = [node.queue_at(now) for node in nodes]
        others = max(1, len(nodes) - 1)
        bound = max(self._queue, CROWDED * (sum(everywhere) - least) / others)
        if least < bound:
            return homes[queues.index(least)]
        for name in self._order(model):
            if everywhere[self._number[name]] < bound:
                return self._number[name]
        return everywhere.index(min(everywhere))

    def _order(self, model: int) -> Homes:
        found = self._orders.get(model)
        if found is None:
            found = self._orders[model] = order(self._known.names[model], self._weights)
        return found


class Placer:
    """Moves homes by the rates that it has measured so far, and gives hot models several."""

    def __init__(
        self, nodes: Sequence[Node], copies: Copies, known: Catalogue, budget: int | None, seconds: float
    ) -> None:
        """`budget` is that of each node in bytes; `seconds` is how long the workload takes."""
        self._nodes, self._copies, self._known = nodes, copies, known
        self._rooms = {name: NodeRoom(budget=budget) for name in names_of(nodes)}
        self._weights = dict.fromkeys(self._rooms, 1.0)
        self._number = {name: number for number, name in enumerate(self._rooms)}
        self._period = max(PERIOD, seconds / MOST_PLACEMENTS)
        self._due, self._before, self._periods = self._period, 0.0, 0
        self._asked = Counter[int]()  # since then
        self._rates: dict[int, float] = {}
        self._placed: dict[str, Homes] = {}
        self._homes: dict[int, tuple[int, ...]] = {}

    def homes(self, model: int, now: float) -> tuple[int, ...] | None:
        """The homes of a model, for which a request has arrived; None if its home follows from its id."""
        if now >= self._due:
            self._measure(now)
            self._place()
            self._due = now + self._period
        self._asked[model] += 1
        return self._homes.get(model)

    def _measure(self, now: float) -> None:
        self._periods += 1
        passed, self._before = now - self._before, now
        # The first periods weigh alike; then one weighs less the older it is.
        share = max(1 / self._periods, 1 - 0.5 ** (passed / (HALF_LIFE * self._period)))
        for model in self._rates.keys() | self._asked.keys():
            rate = self._rates.get(model, 0.0)
            self._rates[model] = rate + share * (self._asked[model] / passed - rate)
        self._asked.clear()

    def _place(self) -> None:
        known = self._known
        demands = {
            known.names[model]: Demand(rate, known.models[model].forward_s, known.models[model].nbytes)
            for model, rate in sorted(self._rates.items())
            if rate >= FORGOTTEN
        }
        placed, moves = dict[str, Homes](), 0
        for name, wanted in place(demands, self._rooms, self._copies, self._placed).items():
            before = self._placed.get(name)
            if self._is_to_load(known.index[name], before or order(name, self._weights)[:1], wanted):
                moves += 1
                if moves > MOST_MOVES:
                    if before is not None:
                        placed[name] = before
                    continue
            placed[name] = wanted
        self._placed = placed
        self._homes = {known.index[name]: tuple(map(self._number.__getitem__, homes)) for name, homes in placed.items()}

    def _is_to_load(self, model: int, before: Homes, wanted: Homes) -> bool:
        """Whether a home has the model in memory, and a new one does not."""
        new = [name for name in wanted if name not in before]
        return bool(new) and self._hold(before, model) and any(not self._hold([name], model) for name in new)

    def _hold(self, names: Sequence[str], model: int) -> bool:
        return any(self._nodes[self._number[name]].holds(model) for name in names)


def first_of_each(models: Sequence[str], count: int) -> list[int]:
    """The indices of the models from the first one on, until each of so many nodes is the home of one by its hash."""
    weights, found, homes = dict.fromkeys(names_of(range(count)), 1.0), list[int](), set[str]()
    for index, model in enumerate(models):
        if len(homes) == count:
            break
        found.append(index)
        homes.add(order(model, weights)[0])
    return found


def names_of(nodes: Sequence[object]) -> list[str]:
    """The names of the nodes, as those of slots."""
    return [f"n{number}" for number in range(1, len(nodes) + 1)]


class MultiplexedRouter:
    """Ray Serve 2.60 with `@serve.multiplexed`, as in its `pow_2_router.py`: of the replicas that have the model, by a
    view that is some tenths of a second old, two at random, and the shorter queue of these; if none has it or both are
    full, two of those with the fewest models; then two of all.

    It is kinder than the original: a request that finds only full replicas does not wait to try again, and a replica
    loads several models at a time.
    """

    def __init__(self, nodes: Sequence[Node], chosen: PlanNodes, seed: int) -> None:
        self._nodes, self._bound = nodes, chosen.queue
        self._random = random.Random(seed)
        self._looked = -math.inf
        self._news: deque[tuple[float, int, int, int]] = deque()  # that the view does not have yet
        self._warm: dict[int, dict[int, int]] = {}  # copies by node, for each model
        self._models = [0] * len(nodes)  # how many the view has
        for index, node in enumerate(nodes):
            node.changes = []
            self._news.extend((-math.inf, index, model, 1) for model in node.in_memory())

    def node_for(self, model: int, now: float) -> int:
        if now >= self._looked + LOOK_S:
            self._look(now)
        self._see(now - VIEW_S)
        warm = self._warm.get(model)
        if warm and (found := self._shorter(list(warm), now)) is not None:
            return found
        least = min(self._models)
        fewest = [index for index, count in enumerate(self._models) if count == least]
        if (found := self._shorter(fewest, now)) is not None:
            return found
        every = range(len(self._nodes))
        found = self._shorter(every, now)
        return min(every, key=lambda index: self._nodes[index].queue_at(now)) if found is None else found

    def _look(self, now: float) -> None:
        """Gather what has happened on all nodes."""
        self._looked, news = now, []
        for index, node in enumerate(self._nodes):
            node.advance(now)
            if node.changes:
                news += [(at, index, model, change) for at, model, change in node.changes]
                node.changes = []
        self._news.extend(sorted(news))

    def _see(self, until: float) -> None:
        """Bring the view up to that moment."""
        news = self._news
        while news and news[0][0] <= until:
            _, index, model, change = news.popleft()
            copies = self._warm.setdefault(model, {})
            copies[index] = copies.get(index, 0) + change
            if change > 0 and copies[index] == 1:
                self._models[index] += 1
            if not copies[index]:
                del copies[index]
                self._models[index] -= 1

    def _shorter(self, indices: Sequence[int], now: float) -> int | None:
        """The one with the shorter queue of two at random; None if it is full."""
        two = self._random.sample(indices, min(2, len(indices)))
        queue, _, index = min((self._nodes[index].queue_at(now), place, index) for place, index in enumerate(two))
        return index if queue < self._bound else None
