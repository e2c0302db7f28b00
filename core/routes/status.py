"""What is mounted, and whether the server is alive and ready."""

from __future__ import annotations

from typing import Annotated

import anyio
from fastapi import FastAPI, Query

from ..errors import NotReady
from ..schemas import Health, Readiness, ResidencyAnswer, StrategiesAnswer, Unavailable
from ..serving.host import HISTORY
from ..serving.residency import residency
from ..serving.service import Service
from .openapi import problems

SHOWN = 20
Events = Annotated[int, Query(ge=0, le=HISTORY, description="the latest loads and unloads of each model, so many")]


def add_status_routes(app: FastAPI, service: Service) -> None:
    @app.get("/strategies", summary="What is mounted, and what it holds in memory")
    async def strategies() -> StrategiesAnswer:
        return StrategiesAnswer.model_validate({"strategies": [service.status(m) for m in service.mounted]})

    summary = "Each model's state under each strategy, who goes next and why, and what it costs"

    @app.get("/residency", summary=summary, responses=problems(422))
    async def residency_of_all(history: Events = SHOWN) -> ResidencyAnswer:
        return await anyio.to_thread.run_sync(residency, service.mounted, history)

    @app.get("/healthz", summary="Whether the process is alive")
    async def healthz() -> Health:
        return Health(status="ok")

    @app.get(
        "/readyz",
        summary="Whether start-up loads are done, and which models cannot be answered",
        responses=problems(503),
    )
    async def readyz() -> Readiness:
        if not service.ready:
            raise NotReady("The models that are loaded at start-up are not in memory yet.")
        unavailable = [Unavailable(**each._asdict()) for each in service.unavailable()]
        return Readiness(status="ready", checked=service.checked, unavailable=unavailable)
