"""What is said of a plan's nodes."""

from __future__ import annotations

from ...results.plan_nodes import OverNodes
from ..format import decimals, percent
from .sentences import say


def on_nodes(nodes: int) -> str:
    """` on 100 nodes`; nothing for one server."""
    return f" on {nodes} nodes" if nodes > 1 else ""


@say.register
def say_over_nodes(finding: OverNodes) -> str:
    busiest = f"the busiest one takes {decimals(finding.busiest, 1)} times the CPU time of the average one"
    return (
        f"{_routed(finding)} Of its {finding.nodes} nodes, {busiest}{_room(finding)}. At the end,"
        f" {finding.distinct:,} of the {finding.models:,} models were in memory on some node."
    )


def _routed(finding: OverNodes) -> str:
    if finding.routing == "homes":
        return "Each request goes to a home of its model."
    return "Requests are routed as Ray Serve does for @serve.multiplexed, which no settings of a served app do."


def _room(finding: OverNodes) -> str:
    if finding.room is None:
        return ""
    if finding.capacity is None:
        return f", and none holds more than {percent(finding.room)} of its memory_budget"
    models, take = ("1 model", "takes") if finding.capacity == 1 else (f"{finding.capacity} models", "take")
    return (
        f"; a limit of {models} does not limit bytes, so one node holds"
        f" {decimals(finding.room, 1)} times what {models} of average size {take}"
    )
