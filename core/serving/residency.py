"""What `/residency` tells: every model's state under every strategy."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from .. import memory
from ..models.kept import counts
from ..schemas import Kept, Latencies, Memory, ModelResidency, ModelVersion, ResidencyAnswer, State, StrategyResidency
from .host import Host
from .service import Mounted

MIB = 1 << 20


def residency(mounted: Iterable[Mounted], history: int) -> ResidencyAnswer:
    """With so many of the latest events of each model.

    Takes milliseconds (the kernel adds up the memory) and a strategy's locks: not in the event loop.
    """
    pss, private = (None if mib is None else int(mib * MIB) for mib in memory.at_rest(os.getpid()))
    return ResidencyAnswer(
        memory=Memory(pss_bytes=pss, private_bytes=private),
        kept={name: Kept(**count._asdict()) for name, count in counts().items()},
        strategies=[_strategy(each, history) for each in mounted],
    )


def state_of(host: Host, model_id: str) -> State:
    if any(model.model_id == model_id for model in host.resident()):
        return "resident"
    _, running = host.loads_begun(model_id)
    return "loading" if running else "absent"


def version_of(host: Host, model_id: str) -> ModelVersion | None:
    """None for a model that has none yet, because its reference leads nowhere."""
    version = host.version(model_id)
    return ModelVersion(sha256=version.sha256, revision=version.revision) if version else None


def _strategy(mounted: Mounted, history: int) -> StrategyResidency:
    host = mounted.host
    return StrategyResidency(
        name=mounted.name,
        route=mounted.route,
        loader=mounted.loader.name,
        options=mounted.options,
        budget_bytes=mounted.budget,
        resident_bytes=sum(model.nbytes for model in host.resident()) if host else 0,
        models=[_model(mounted, host, model_id, history) for model_id in host.model_ids] if host else [],
    )


def _model(mounted: Mounted, host: Host, model_id: str, history: int) -> ModelResidency:
    lane = mounted.dispatcher.lanes[model_id] if mounted.dispatcher else None
    model = next((model for model in host.resident() if model.model_id == model_id), None)
    known: dict[str, Any] = dict(mounted.explain(model_id))
    latest = list(lane.latest) if lane else []
    return ModelResidency(
        model=model_id,
        state=state_of(host, model_id),
        bytes=model.nbytes if model else None,
        since=host.epoch(model.since) if model else None,
        last_use=known.get("last_use"),
        expires=known.get("expires"),
        in_use=known.get("in_use"),
        failure=host.failures.get(model_id),
        version=version_of(host, model_id),
        waiting=lane.places if lane else 0,
        next_out=known.get("next_out", False),
        why=known.get("why", ""),
        latency_ms={
            "warm": _latencies([seconds for cold, seconds in latest if not cold]),
            "cold": _latencies([seconds for cold, seconds in latest if cold]),
        },
        history=[event._asdict() | {"at": host.epoch(event.at)} for event in host.history(model_id, history)],
    )


def _latencies(seconds: list[float]) -> Latencies:
    p50, p95 = np.percentile(seconds, (50, 95)) * 1e3 if seconds else (None, None)
    return Latencies(count=len(seconds), p50=p50, p95=p95)
