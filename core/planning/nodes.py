"""The `nodes:` key of a plan, and one simulated node of several."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, model_validator

from ..config.choices import STRICT
from ..config.cluster import Copies, Count
from ..contracts import UnloadReason
from ..residency.copies import Copy
from ..residency.decisions import Decisions
from ..residency.limits import start_strategy
from ..results.header import ClusterSpec
from ..results.plan_nodes import NodesSpec
from .draws import Draws, draws_of
from .outcome import NodeOutcome, Outcome
from .profile import ModelProfile
from .simulator import Server


class PlanNodes(BaseModel):
    """How many nodes there are, and how requests are spread over them."""

    model_config = STRICT

    count: Count
    """How many nodes."""
    routing: Literal["homes", "multiplexed"] = "homes"
    """`homes`: each model has a home, as in `cluster:`. `multiplexed`: as Ray Serve does with `@serve.multiplexed`."""
    copies: Copies = Copies()
    """How many homes a model has: `{max: 8, busy: 35%}`."""
    queue: Annotated[int, Field(ge=1)] = 6
    """If each home of a model has so many requests, and twice as many as the other nodes on average, a request goes to
    the next node in the model's order.
    """
    placement: Literal["rate", "hash"] = "rate"
    """`rate`: homes follow request rates and sizes, and may move. `hash`: they follow from the model's id."""

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, value: Any) -> Any:
        return {"count": value} if isinstance(value, int) and not isinstance(value, bool) else value

    @property
    def cluster(self) -> ClusterSpec:
        """The cluster that serves like this."""
        options = self.model_dump(mode="json", exclude={"count", "routing"}, exclude_defaults=True)
        return ClusterSpec(nodes=self.count, lifecycle="local", options=options)

    @property
    def recorded(self) -> NodesSpec:
        """As plan.json has them."""
        return NodesSpec(
            count=self.count,
            routing=self.routing,
            placement=self.placement,
            most_copies=self.copies.max,
            busy=self.copies.busy,
            queue=self.queue,
        )


@dataclass(frozen=True)
class Catalogue:
    """All models that a node may be asked for. Nodes share it, and take turns at its draws."""

    names: Sequence[str]
    models: Sequence[ModelProfile]
    draws: Draws
    sizes: Mapping[str, int]
    """Bytes by model id."""
    index: Mapping[str, int]
    """Of each model, by its id."""


def catalogue_of(names: Sequence[str], models: Sequence[ModelProfile], seed: int) -> Catalogue:
    """The catalogue of these models."""
    sizes = {name: model.nbytes for name, model in zip(names, models, strict=True)}
    index = {name: number for number, name in enumerate(names)}
    return Catalogue(names, models, draws_of(models, seed), sizes, index)


class Node(Server):
    """A server that knows a model from when it is first asked for: of thousands, a node serves some."""

    def __init__(self, decisions: Decisions, catalogue: Catalogue, max_batch: int) -> None:
        self._set_up(decisions, max_batch)
        self._catalogue = catalogue
        self._local: dict[int, int] = {}  # this server's index of a model, by that of the catalogue
        self._asked: list[int] = []
        self.changes: list[tuple[float, int, int]] | None = None
        """When a copy of which model began to be loaded (1) or closed (-1); not recorded if None."""
        self.models: list[int] = []
        """Indices in the catalogue of the models that this node knows."""
        for name in start_strategy(decisions, catalogue.sizes, catalogue.sizes):
            self.preload_model(catalogue.index[name])

    def preload_model(self, model: int, answered: int = 0) -> None:
        """It has been loaded when the first request arrives, and has answered so many."""
        self.preload(self._local_of(model), answered)

    def _local_of(self, model: int) -> int:
        local = self._local.get(model)
        if local is None:
            known, draws = self._catalogue, self._catalogue.draws
            local = self._local[model] = self.add(
                known.names[model], known.models[model], draws.warm[model], draws.first[model], draws.load[model]
            )
            self.models.append(model)
        return local

    def queue_at(self, now: float) -> int:
        """How many requests it has not answered yet."""
        if len(self._asked) == len(self._latencies):
            return 0
        self.advance(now)
        return len(self._asked) - len(self._latencies)

    def advance(self, now: float) -> None:
        """Do what happens until this moment."""
        if min(self._done, self._wake, self._loads[0][0], self._closings[0][0]) <= now:
            self._serve((now,), (), 0, 0, math.inf)

    def ask(self, model: int, now: float) -> None:
        """A request for that model of the catalogue arrives."""
        local = self._local_of(model)
        self._asked.append(local)
        self._serve((now, now), (local,), 0, 1, math.inf)

    @property
    def answers(self) -> int:
        """How many requests it has answered."""
        return len(self._latencies)

    def end_half(self, now: float) -> None:
        """The first half of all requests ends."""
        self._end_half(now, self._asked)

    def finish(self) -> float:
        """Answer all requests; when the last answer was given."""
        return self._serve((math.inf,), (), 0, 0, len(self._asked))

    def outcome(self, end: float) -> Outcome:
        """What happened until that moment, by this server's indices."""
        self.advance(end)
        return self._outcome(end, self._asked)

    def in_memory(self) -> list[int]:
        """Indices in the catalogue of the models that are in memory, or being loaded."""
        return [model for model, copies in zip(self.models, self._copies_of, strict=True) if copies]

    def holds(self, model: int) -> bool:
        """Whether that model of the catalogue is in memory, or being loaded."""
        return model in self._local and self._copies_of[self._local[model]] > 0

    def figures(self, outcome: Outcome) -> NodeOutcome:
        """The node's part in an outcome, which is its own; it may have known fewer models at its end."""
        known = self.models[: len(outcome.loads)]
        return NodeOutcome(
            requests=len(outcome.latencies),
            cold=outcome.cold,
            loads=sum(outcome.loads),
            busy=outcome.busy,
            core_seconds=outcome.core_seconds([self._catalogue.models[model] for model in known]),
            weights_mib=outcome.weights_mib,
            models=len(self.in_memory()),
        )

    # What a router sees of its pool.

    def begin_load(self, copy: Copy) -> None:
        super().begin_load(copy)
        if self.changes is not None:
            self.changes.append((self._now, self.models[copy.model], 1))

    def begin_close(self, copy: Copy, reason: UnloadReason) -> None:
        super().begin_close(copy, reason)
        if self.changes is not None:
            self.changes.append((self._now, self.models[copy.model], -1))
