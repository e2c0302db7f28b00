"""The nodes of a trial's server: waiting until all are up, and counting what each of them did."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

import httpx

from ..config.quantities import duration
from ..errors import TrialFailed
from ..results.records import NodeCounts
from .client import Status, read_statuses
from .server import POLL_SECONDS, ServerProcess
from .timeline import OF_EACH


class _Change(NamedTuple):
    """A load or an unload of a model, on one node."""

    at: float
    """Seconds since the epoch."""
    model: str
    loaded: bool


class _History(NamedTuple):
    """What a node remembers of its models."""

    budget: int | None
    """Bytes that its strategy allows."""
    changes: list[_Change]
    """In the order of their times. All of them since the first one that every model remembers."""


def wait_for_nodes(server: ServerProcess, client: httpx.Client, count: int, timeout: float) -> float:
    """Wait until the server lists so many nodes. Returns the seconds since exec. Raises TrialFailed."""
    found: set[str] = set()
    while time.perf_counter() - server.started < timeout:
        server.check()
        with suppress(httpx.HTTPStatusError):  # what answers for all nodes may not be up yet
            found = {name for status in read_statuses(client) if (name := status.get("node"))}
        if len(found) >= count:
            return time.perf_counter() - server.started
        time.sleep(POLL_SECONDS)
    reason = server.failure_reason()
    raise TrialFailed(f"only {len(found)} of {count} nodes were ready within {duration(timeout)}: {reason}")


def wait_until_probed(server: ServerProcess, client: httpx.Client, timeout: float) -> None:
    """Wait until each node has probed its models, which takes CPU time once for each model."""
    end = time.perf_counter() + timeout
    while time.perf_counter() < end and not client.get("/strategies").raise_for_status().json().get("checked", True):
        server.check()
        time.sleep(POLL_SECONDS)


def count_by_node(client: httpx.Client, answered: Mapping[str, int]) -> list[NodeCounts]:
    """What each node has done. `answered` is how many requests each has answered, by its name."""
    histories = _read_histories(client)
    return sorted(
        (_counts(status, histories, answered) for status in read_statuses(client)), key=lambda counts: counts.node
    )


def _counts(status: Status, histories: Mapping[str, _History], answered: Mapping[str, int]) -> NodeCounts:
    node = status.get("node", "")
    sizes = {used["model"]: used["nbytes"] for used in status["used"]}
    sizes |= {model["model"]: model["bytes"] for model in status["resident"]}
    held, history = sum(model["bytes"] for model in status["resident"]), histories.get(node)
    return NodeCounts(
        node=node,
        requests=answered.get(node, 0),
        loads=status["loads"],
        unloads=status["unloads"],
        bytes=held,
        most_bytes=most_bytes(held, sizes, history.changes) if history else None,
        budget_bytes=history.budget if history else None,
    )


def most_bytes(held: int, sizes: Mapping[str, int], changes: list[_Change]) -> int:
    """The most bytes in memory at any time, if there are `held` bytes after all these changes."""
    most = held
    for change in reversed(changes):
        held += -sizes.get(change.model, 0) if change.loaded else sizes.get(change.model, 0)
        most = max(most, held)
    return most


def _read_histories(client: httpx.Client) -> dict[str, _History]:
    """What each node remembers, by its name. Raises httpx.HTTPError."""
    strategies = client.get("/residency", params={"history": OF_EACH}).raise_for_status().json()["strategies"]
    found = {}
    for strategy in strategies:
        models = {model["model"]: model["history"] for model in strategy["models"]}  # the newest change first
        # Of a model with so many changes, the node may have forgotten earlier ones.
        since = max((history[-1]["at"] for history in models.values() if len(history) >= OF_EACH), default=0.0)
        changes = [
            _Change(event["at"], model, event["event"] == "load")
            for model, history in models.items()
            for event in history
            if event["at"] >= since
        ]
        found[strategy.get("node", "")] = _History(strategy["budget_bytes"], sorted(changes))
    return found
