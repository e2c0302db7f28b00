"""Several nodes under one strategy, simulated: each is a server of its own, and a router chooses among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..residency.decisions import Decisions
from .nodes import Node, PlanNodes, catalogue_of
from .outcome import NodesOutcome, Outcome
from .profile import ModelProfile
from .routing import HomesRouter, MultiplexedRouter, Placer, Router

PARTS = 100  # of the requests, in which the answers of all nodes are put together: answers have no times


class Cluster:
    """Times in seconds; `models` by index, as in `asked`."""

    def __init__(
        self,
        decisions: Callable[[], Decisions],
        chosen: PlanNodes,
        names: Sequence[str],
        models: Sequence[ModelProfile],
        max_batch: int,
        seed: int,
    ) -> None:
        self._known, self._chosen, self._seed = catalogue_of(names, models, seed), chosen, seed
        self._nodes = [Node(decisions(), self._known, max_batch) for _ in range(chosen.count)]
        self._budget = decisions().budget
        self._answers: list[list[int]] = []  # of each node, at the beginning of each part

    def preload(self, model: int, answered: int = 0) -> None:
        """Its home has loaded it when the first request arrives, and has answered so many."""
        self._nodes[self._router(0.0).node_for(model, 0.0)].preload_model(model, answered)

    def _router(self, seconds: float) -> Router:
        if self._chosen.routing == "multiplexed":
            return MultiplexedRouter(self._nodes, self._chosen, self._seed)
        by_rate = self._chosen.placement == "rate"
        placer = Placer(self._nodes, self._chosen.copies, self._known, self._budget, seconds) if by_rate else None
        return HomesRouter(self._nodes, self._chosen, self._known, placer)

    def run(self, at: Sequence[float], asked: Sequence[int]) -> Outcome:
        """Serve requests that arrive at these times, ascending, each for one model."""
        node_for, nodes = self._router(at[-1]).node_for, self._nodes
        middle, part = len(asked) // 2, -(-len(asked) // PARTS)
        bounds = sorted({*range(0, len(asked), part), middle, len(asked)})
        for begin, end in pairwise(bounds):
            self._begin_part(at[begin])
            if begin == middle > 0:
                for node in nodes:
                    node.end_half(at[begin])
            for now, model in zip(at[begin:end], asked[begin:end], strict=True):
                nodes[node_for(model, now)].ask(model, now)
        last = max(at[-1], *(node.finish() for node in nodes))
        self._begin_part(last)
        return self._merged([node.outcome(last) for node in nodes], bounds.index(middle) if middle else None)

    def _begin_part(self, now: float) -> None:
        for node in self._nodes:
            node.advance(now)
        self._answers.append([node.answers for node in self._nodes])

    def _merged(self, outcomes: Sequence[Outcome], middle: int | None) -> Outcome:
        """The outcome of all nodes, whose own ones these are; `middle` is the number of the part that the second half
        begins with.
        """
        whole = self._together(outcomes, self._answers)
        if middle is None:
            return whole
        halves = self._answers[: middle + 1], self._answers[middle:]
        of_halves = [self._together([each.halves[half] for each in outcomes], halves[half]) for half in (0, 1)]
        return replace(whole, halves=tuple(of_halves))

    def _together(self, outcomes: Sequence[Outcome], answers: Sequence[Sequence[int]]) -> Outcome:
        nodes, count = self._nodes, len(self._known.models)
        known = [node.models for node in nodes]
        keeps = [each.least_keep for each in outcomes if each.least_keep is not None]
        return Outcome(
            latencies=_in_parts([each.latencies for each in outcomes], answers),
            at_first=_in_parts([each.at_first for each in outcomes], answers),
            requests=_by_model([each.requests for each in outcomes], known, np.zeros(count, dtype=int)).tolist(),
            cold=sum(each.cold for each in outcomes),
            loads=_by_model([each.loads for each in outcomes], known, np.zeros(count, dtype=int)).tolist(),
            least_keep=min(keeps, default=None),
            seconds=outcomes[0].seconds,
            mib_seconds_of=_by_model([each.mib_seconds_of for each in outcomes], known, np.zeros(count)).tolist(),
            peak_mib=sum(each.peak_mib for each in outcomes),
            weights_mib=max(each.weights_mib for each in outcomes),
            busy=max(each.busy for each in outcomes),
            exceeded=any(each.exceeded for each in outcomes),
            nodes=NodesOutcome(
                each=[node.figures(each) for node, each in zip(nodes, outcomes, strict=True)],
                distinct=len({model for node in nodes for model in node.in_memory()}),
            ),
        )


def _in_parts(values: Sequence[NDArray[Any]], answers: Sequence[Sequence[int]]) -> NDArray[Any]:
    """What all nodes have, part by part; `answers` says how many each one had at the beginning of a part."""
    first = answers[0]
    return np.concatenate(
        [
            each[begin - offset : end - offset]
            for begins, ends in pairwise(answers)
            for each, begin, end, offset in zip(values, begins, ends, first, strict=True)
        ]
    )


def _by_model(values: Sequence[Sequence[float]], known: Sequence[Sequence[int]], total: NDArray[Any]) -> NDArray[Any]:
    """The sum over nodes for each model; a node has one value for each model that it knew at that time."""
    for each, models in zip(values, known, strict=True):
        total[models[: len(each)]] += np.array(each, dtype=total.dtype)
    return total
