"""What a plan for several nodes finds of them."""

from __future__ import annotations

from typing import Literal

from .recorded import Recorded


class NodesSpec(Recorded):
    """How many nodes there are, and how requests are spread over them."""

    count: int
    routing: Literal["homes", "multiplexed"]
    """To a model's home, or as Ray Serve does with `@serve.multiplexed`."""
    placement: Literal["rate", "hash"]
    """Whether homes follow request rates, or the model's id alone."""
    most_copies: int
    """The most homes of one model."""
    busy: float
    """A model that keeps more than this share of a node busy has more homes."""
    queue: int
    """Requests at a home, past which one goes elsewhere."""


class NodeFigures(Recorded):
    """What one node did under a setting."""

    requests: int
    """That it answered."""
    cold: int
    loads: int
    busy: float
    """Share of the time that its busiest part was at work."""
    cores: float
    """That its loads and requests take on average."""
    most_mib: float
    """The most weights of models that it held at a time."""
    models: int
    """In its memory at the end."""


class NodesFigures(Recorded):
    """What all nodes did under a setting."""

    busiest: float
    """The CPU time of the busiest node, relative to the mean; 1 if none took any."""
    room: float | None
    """The most weights on any node at a time, relative to the memory budget of each; where the number of models is
    limited, relative to that number times their average size; None where nothing is limited.
    """
    capacity: int | None
    """The limit, if it is a number of models."""
    distinct: int
    """Models that were in the memory of any node at the end."""
    each: list[NodeFigures]


class OverNodes(Recorded):
    """How the recommended setting uses its nodes."""

    kind: Literal["over nodes"] = "over nodes"
    label: str
    nodes: int
    routing: Literal["homes", "multiplexed"]
    busiest: float
    """The CPU time of the busiest node, relative to the mean."""
    room: float | None
    """The most weights on any node, relative to its limit."""
    capacity: int | None
    """The limit, if it is a number of models."""
    distinct: int
    """Models that were in the memory of any node at the end."""
    models: int
    """How many there are in all."""
