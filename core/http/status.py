"""`/strategies`, `/residency`, `/metrics`, `/healthz` and `/readyz`: what the server has in memory and how it does."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Annotated

import anyio
import numpy as np
from fastapi import FastAPI, Query, Response

from ..config.engines import EngineChoice
from ..errors import LoadFailed
from ..loaders.shared_cache import count_entries
from ..residency.copies import Copy
from ..residency.decisions import Decisions
from ..residency.events import Change, Loaded
from ..residency.host import HISTORY, Host
from ..residency.keeper import Keeper
from ..residency.leases import CopyStatus
from ..residency.versions import Versions
from ..serving.service import Service
from ..serving.strategy import DeclaredStrategy, RunningStrategy
from ..system import memory
from .openapi import problem_responses
from .schemas import (
    Health,
    HistoryEvent,
    Kept,
    Latencies,
    Memory,
    ModelResidency,
    ModelVersion,
    Readiness,
    ResidencyAnswer,
    ResidentModel,
    State,
    StrategiesAnswer,
    StrategyResidency,
    StrategyStatus,
    Unavailable,
    UsedLoader,
)

MIB = 1 << 20
DEFAULT_HISTORY = 20
Events = Annotated[
    int, Query(ge=0, le=HISTORY, description="how many recent loads and unloads of each model to return")
]


def add_status_routes(app: FastAPI, service: Service) -> None:
    summary = "The mounted strategies, and what they hold in memory"

    @app.get("/strategies", summary=summary, response_model_exclude_unset=True)
    async def strategies() -> StrategiesAnswer:
        return strategies_answer(service)

    summary = "Each model's state under each strategy, what would be evicted next and why, and latencies"

    @app.get("/residency", summary=summary, responses=problem_responses(422), response_model_exclude_unset=True)
    async def residency_of_all(history: Events = DEFAULT_HISTORY) -> ResidencyAnswer:
        return await anyio.to_thread.run_sync(residency_answer, service, history)

    @app.get(
        "/metrics", summary="For Prometheus", response_class=Response, responses={200: {"content": {"text/plain": {}}}}
    )
    async def metrics() -> Response:
        return Response(await anyio.to_thread.run_sync(service.metrics.scrape), media_type=service.metrics.media_type)

    @app.get("/healthz", summary="Whether the process is alive")
    async def healthz() -> Health:
        return Health(status="ok")

    @app.get(
        "/readyz",
        summary="Whether start-up loads are done, and which models cannot be answered",
        responses=problem_responses(503),
    )
    async def readyz() -> Readiness:
        service.check_ready()
        unavailable = [Unavailable(**each._asdict()) for each in service.engine.unavailable()]
        return Readiness(status="ready", checked=service.engine.is_checked, unavailable=unavailable)


def strategies_answer(service: Service) -> StrategiesAnswer:
    """The mounted strategies, and what they hold in memory."""
    running = service.engine.running
    return StrategiesAnswer(
        strategies=[_status(each, running.get(each.name), service.batching) for each in service.strategies],
        checked=service.engine.is_checked,
    )


def _status(
    declared: DeclaredStrategy, running: RunningStrategy | None, batching: dict[str, float] | None
) -> StrategyStatus:
    """The status of a strategy; it has counted nothing if it does not run yet."""
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
            for model_id, used in (host.recent_loads() if host else {}).items()
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


def residency_answer(service: Service, history: int) -> ResidencyAnswer:
    """The state of every model, with up to `history` recent loads and unloads of each.

    It takes milliseconds, because the kernel adds up the memory, and the locks of strategies: not in the event loop.
    """
    pss, private = (None if mib is None else int(mib * MIB) for mib in memory.pss_and_private(os.getpid()))
    running = service.engine.running
    return ResidencyAnswer(
        memory=Memory(pss_bytes=pss, private_bytes=private),
        kept={name: Kept(**count._asdict()) for name, count in count_entries().items()},
        strategies=[
            _strategy(each, running.get(each.name), service.engine.model_ids, history) for each in service.strategies
        ],
    )


def state_of(keeper: Keeper, model_id: str) -> State:
    if any(copy.model_id == model_id for copy in keeper.residents()):
        return "resident"
    return "loading" if keeper.is_loading(model_id) else "absent"


def version_of(versions: Versions, model_id: str) -> ModelVersion | None:
    """The current version of the model; None if its reference leads to no checkpoint."""
    version = versions.get(model_id)
    return ModelVersion(sha256=version.sha256, revision=version.revision) if version else None


def _strategy(
    declared: DeclaredStrategy, running: RunningStrategy | None, model_ids: tuple[str, ...], history: int
) -> StrategyResidency:
    """The models under one strategy; none if it does not run yet."""
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
    running: RunningStrategy, model_id: str, copy: Copy | None, next_out: str | None, history: int
) -> ModelResidency:
    host, keeper = running.host, running.keeper
    queue = running.dispatcher.queues.get(model_id)
    recent = list(queue.recent_answers) if queue else []
    status = keeper.status(model_id)
    epoch = host.clock.epoch
    return ModelResidency(
        model=model_id,
        engine=isinstance(host.versions.references.get(model_id), EngineChoice),
        tasks=_tasks(host, model_id),
        state="resident" if copy else "loading" if keeper.is_loading(model_id) else "absent",
        bytes=copy.nbytes if copy else None,
        since=epoch(copy.loaded_at) if copy else None,
        last_use=epoch(status.last_used) if status else None,
        expires=epoch(status.expires) if status and status.expires is not None else None,
        in_use=status.leases if status else None,
        failure=host.failures.get(model_id),
        version=version_of(host.versions, model_id),
        waiting=queue.slots_in_use if queue else 0,
        next_out=next_out == model_id,
        why=_reason(status, model_id, next_out, keeper.decisions) if status else "",
        latency_ms={
            "warm": _latencies([seconds for cold, seconds in recent if not cold]),
            "cold": _latencies([seconds for cold, seconds in recent if cold]),
        },
        history=[_event(change, epoch(change.at)) for change in host.history(model_id, history)],
    )


def _tasks(host: Host, model_id: str) -> list[str] | None:
    """The model's tasks; None if its reference leads to no checkpoint, or the loader cannot tell."""
    with suppress(LoadFailed):
        known = host.known_tasks(model_id) or (host.tasks(model_id) if host.version(model_id) else None)
        return None if known is None else list(known)
    return None


def _event(change: Change, at: float) -> HistoryEvent:
    kind = "load" if isinstance(change, Loaded) else "unload"
    return HistoryEvent(event=kind, reason=change.reason, at=at, seconds=change.seconds)


def _reason(status: CopyStatus, model_id: str, next_out: str | None, decisions: Decisions) -> str:
    """Why the model stays, or would be evicted next: what the pool knows, and what the strategy says."""
    return "; ".join(filter(None, (_reason_of_pool(status, model_id, next_out, decisions), status.explanation)))


def _reason_of_pool(status: CopyStatus, model_id: str, next_out: str | None, decisions: Decisions) -> str:
    if model_id in decisions.pinned:
        return "it is pinned"
    if status.leases:
        return "it is in use"
    if next_out is None:
        return ""
    if not decisions.is_limited:
        return "it expires first" if next_out == model_id else ""
    if not decisions.has_evict:
        oldest = "it is the least recently used idle model"
        return oldest if next_out == model_id else f"'{next_out}' was used longer ago"
    return "it would be evicted next" if next_out == model_id else f"'{next_out}' would be evicted before it"


def _latencies(seconds: list[float]) -> Latencies:
    p50, p95 = np.percentile(seconds, (50, 95)) * 1e3 if seconds else (None, None)
    return Latencies(count=len(seconds), p50=p50, p95=p95)
