"""`POST /models/{id}/load`, `/unload` and `/reload`: only on a server that was given a token."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import anyio
from fastapi import Depends, FastAPI, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import SecretStr
from starlette.exceptions import HTTPException

from ..config.settings import Settings
from ..errors import NotReady, ResidencyError, UnknownModel
from ..residency.redact import without_paths
from ..serving.service import Service
from .openapi import problems
from .predict import check_json, validated
from .residency import state_of, status
from .schemas import Steered, SteerRequest, StrategiesAnswer

log = logging.getLogger("residency")
bearer = HTTPBearer(auto_error=False)
BODY = {"required": True, "content": {"application/json": {"schema": SteerRequest.model_json_schema()}}}


def add_steering(app: FastAPI, service: Service, token: SecretStr, reread: Callable[[], Settings] | None) -> None:
    """`reread` gives the settings as they are now, where they can change."""

    def check(given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> None:
        wanted = token.get_secret_value().encode()
        if given is None or not secrets.compare_digest(given.credentials.encode(), wanted):
            raise HTTPException(
                401, "Give the server's token as 'Authorization: Bearer …'.", {"WWW-Authenticate": "Bearer"}
            )

    guard = [Depends(check)]

    def add(name: Literal["load", "unload"], summary: str) -> None:
        @app.post(
            f"/models/{{model_id}}/{name}",
            summary=summary,
            operation_id=f"{name}_model",
            dependencies=guard,
            responses=problems(401, 404, 405, 409, 413, 415, 422, 503),
            openapi_extra={"requestBody": BODY},
        )
        async def steer(model_id: str, request: Request) -> Steered:
            check_json(request)
            wanted = validated(SteerRequest, await request.body())
            strategy, engine = wanted.strategy, service.engine
            running = engine.running_one(strategy)
            if model_id not in engine.models:
                raise UnknownModel(f"There is no model '{model_id[:100]}'.")
            await (engine.load if name == "load" else engine.unload)(strategy, model_id)
            return Steered(model=model_id, strategy=strategy, state=state_of(running.keeper, model_id))

    add("load", "Bring a model into memory")
    add("unload", "Take a model out of memory")
    if reread is not None:
        _add_reload(app, service, guard, reread)


def _add_reload(app: FastAPI, service: Service, guard: Sequence[Any], reread: Callable[[], Settings]) -> None:
    @app.post(
        "/reload",
        summary="Read the settings anew, and serve other models and options without a restart",
        dependencies=guard,
        responses=problems(401, 422, 503),
    )
    async def reload() -> StrategiesAnswer:
        try:
            await service.update(await anyio.to_thread.run_sync(reread))
        except NotReady:
            raise
        except ResidencyError as error:
            log.error("The settings stay as they are: %s", error)
            raise HTTPException(422, without_paths(error, Path())) from error
        app.openapi_schema = None  # it names the models
        return status(service)
