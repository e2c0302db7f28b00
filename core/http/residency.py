"""What `/strategies` and `/residency` tell: what is mounted, and every model's state under every strategy."""

from __future__ import annotations

import os

import numpy as np

from ..loaders.kept import counts
from ..residency.copies import Copy
from ..residency.decisions import Decisions
from ..residency.events import Change, Loaded
from ..residency.keeper import Keeper, Look
from ..residency.versions import Versions
from ..serving.service import Service
from ..serving.strategy import DeclaredStrategy, RunningStrategy
from ..system import memory
from .schemas import (
    HistoryEvent,
    Kept,
    Latencies,
    Memory,
    ModelResidency,
    ModelVersion,
    ResidencyAnswer,
    ResidentModel,
    State,
    StrategiesAnswer,
    StrategyResidency,
    StrategyStatus,
    UsedLoader,
)

MIB = 1 << 20


def status(service: Service) -> StrategiesAnswer:
    """What is mounted, and what it holds in memory."""
    running = service.engine.running
    return StrategiesAnswer(
        strategies=[_status(each, running.get(each.name), service.batching) for each in service.strategies]
    )


def _status(
    declared: DeclaredStrategy, running: RunningStrategy | None, batching: dict[str, float] | None
) -> StrategyStatus:
    """Nothing was done yet by one that does not run."""
    host = running and running.host
    return StrategyStatus(
        name=declared.name,
        route=declared.registered.route,
        loader=declared.loader.name,
        options=declared.options,
        batching=batching,
        loads=host.loads if host else 0,
        unloads=host.unloads if host else 0,
        unload_s=host.unload_seconds if host else 0.0,
        crashes=host.crashes if host else 0,
        used=[
            UsedLoader(model=model_id, loader=used.loader, dtype=used.dtype, nbytes=used.nbytes)
            for model_id, used in (host.used() if host else {}).items()
        ],
        resident=[
            ResidentModel(model=model.model_id, bytes=model.nbytes, since=running.host.clock.epoch(model.loaded_at))
            for model in running.resident()
        ]
        if running
        else [],
        least_keep=declared.decisions.least_keep,
        faults=dict(declared.decisions.faults),
    )


def residency(service: Service, history: int) -> ResidencyAnswer:
    """With so many of the latest events of each model.

    Takes milliseconds (the kernel adds up the memory) and a strategy's locks: not in the event loop.
    """
    pss, private = (None if mib is None else int(mib * MIB) for mib in memory.at_rest(os.getpid()))
    running = service.engine.running
    return ResidencyAnswer(
        memory=Memory(pss_bytes=pss, private_bytes=private),
        kept={name: Kept(**count._asdict()) for name, count in counts().items()},
        strategies=[
            _strategy(each, running.get(each.name), service.engine.model_ids, history) for each in service.strategies
        ],
    )


def state_of(keeper: Keeper, model_id: str) -> State:
    if any(copy.model_id == model_id for copy in keeper.residents()):
        return "resident"
    return "loading" if keeper.is_loading(model_id) else "absent"


def version_of(versions: Versions, model_id: str) -> ModelVersion | None:
    """None for a model that has none yet, because its reference leads nowhere."""
    version = versions.known(model_id)
    return ModelVersion(sha256=version.sha256, revision=version.revision) if version else None


def _strategy(
    declared: DeclaredStrategy, running: RunningStrategy | None, model_ids: tuple[str, ...], history: int
) -> StrategyResidency:
    """One that does not run yet tells of no model."""
    copies = {copy.model_id: copy for copy in running.keeper.residents()} if running else {}
    next_out = running.keeper.next_out() if running else None
    return StrategyResidency(
        name=declared.name,
        route=declared.registered.route,
        loader=declared.loader.name,
        options=declared.options,
        budget_bytes=declared.decisions.budget,
        resident_bytes=sum(copy.nbytes for copy in copies.values()),
        models=[_model(running, model_id, copies.get(model_id), next_out, history) for model_id in model_ids]
        if running
        else [],
    )


def _model(
    running: RunningStrategy, model_id: str, found: Copy | None, next_out: str | None, history: int
) -> ModelResidency:
    host, keeper = running.host, running.keeper
    queue = running.dispatcher.queues.get(model_id)
    latest = list(queue.latest) if queue else []
    seen = keeper.look(model_id)
    epoch = host.clock.epoch
    return ModelResidency(
        model=model_id,
        state="resident" if found else "loading" if keeper.is_loading(model_id) else "absent",
        bytes=found.nbytes if found else None,
        since=epoch(found.loaded_at) if found else None,
        last_use=epoch(seen.last_used) if seen else None,
        expires=epoch(seen.expires) if seen and seen.expires is not None else None,
        in_use=seen.leases if seen else None,
        failure=host.failures.get(model_id),
        version=version_of(host.versions, model_id),
        waiting=queue.places if queue else 0,
        next_out=next_out == model_id,
        why=_why(seen, model_id, next_out, keeper.decisions) if seen else "",
        latency_ms={
            "warm": _latencies([seconds for cold, seconds in latest if not cold]),
            "cold": _latencies([seconds for cold, seconds in latest if cold]),
        },
        history=[_event(change, epoch(change.at)) for change in host.history(model_id, history)],
    )


def _event(change: Change, at: float) -> HistoryEvent:
    kind = "load" if isinstance(change, Loaded) else "unload"
    return HistoryEvent(event=kind, reason=change.reason, at=at, seconds=change.seconds)


def _why(seen: Look, model_id: str, next_out: str | None, decisions: Decisions) -> str:
    """Why the model stays, or goes next: what the pool knows, and what the strategy says."""
    return "; ".join(filter(None, (_where(seen, model_id, next_out, decisions), seen.explained)))


def _where(seen: Look, model_id: str, next_out: str | None, decisions: Decisions) -> str:
    if model_id in decisions.pinned:
        return "it is pinned"
    if seen.leases:
        return "it is in use"
    if next_out is None:
        return ""
    if not decisions.is_limited:
        return "its time is up first" if next_out == model_id else ""
    if not decisions.chooses:
        oldest = "of those that nobody uses, it was used the longest ago"
        return oldest if next_out == model_id else f"'{next_out}' was used longer ago"
    return "it goes next" if next_out == model_id else f"'{next_out}' goes before it"


def _latencies(seconds: list[float]) -> Latencies:
    p50, p95 = np.percentile(seconds, (50, 95)) * 1e3 if seconds else (None, None)
    return Latencies(count=len(seconds), p50=p50, p95=p95)
