"""What is mounted, and whether the server is alive and ready."""

from __future__ import annotations

from typing import Annotated

import anyio
from fastapi import FastAPI, Query

from ..residency.host import HISTORY
from ..serving.service import Service
from .openapi import problems
from .residency import residency, status
from .schemas import (
    Health,
    Readiness,
    ResidencyAnswer,
    StrategiesAnswer,
    Unavailable,
)

SHOWN = 20
Events = Annotated[int, Query(ge=0, le=HISTORY, description="the latest loads and unloads of each model, so many")]


def add_status_routes(app: FastAPI, service: Service) -> None:
    @app.get("/strategies", summary="What is mounted, and what it holds in memory")
    async def strategies() -> StrategiesAnswer:
        return status(service)

    summary = "Each model's state under each strategy, who goes next and why, and what it costs"

    @app.get("/residency", summary=summary, responses=problems(422))
    async def residency_of_all(history: Events = SHOWN) -> ResidencyAnswer:
        return await anyio.to_thread.run_sync(residency, service, history)

    @app.get("/healthz", summary="Whether the process is alive")
    async def healthz() -> Health:
        return Health(status="ok")

    @app.get(
        "/readyz",
        summary="Whether start-up loads are done, and which models cannot be answered",
        responses=problems(503),
    )
    async def readyz() -> Readiness:
        service.check_ready()
        unavailable = [Unavailable(**each._asdict()) for each in service.engine.unavailable()]
        return Readiness(status="ready", checked=service.engine.is_checked, unavailable=unavailable)
