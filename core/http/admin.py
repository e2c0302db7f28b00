"""`POST /models/{id}/load`, `/unload` and `/reload`, for operators with the server's token."""

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
from ..residency.versions import without_paths
from ..serving.service import Service
from .openapi import problem_responses
from .predict import check_json, find_model_named, validate_body
from .schemas import ManualChange, ManualRequest, StrategiesAnswer
from .status import state_of, strategies_answer

log = logging.getLogger("residency")
bearer = HTTPBearer(auto_error=False)
BODY = {"required": True, "content": {"application/json": {"schema": ManualRequest.model_json_schema()}}}


def add_admin_routes(
    app: FastAPI, service: Service, token: SecretStr, reread_settings: Callable[[], Settings] | None
) -> None:
    """Add the routes. Without `reread_settings`, which reads the settings again, there is no `/reload`."""
    guard = [for_operators(token)]

    def add(name: Literal["load", "unload"], summary: str) -> None:
        @app.post(
            f"/models/{{model_id}}/{name}",
            summary=summary,
            operation_id=f"{name}_model",
            dependencies=guard,
            responses=problem_responses(401, 404, 405, 409, 413, 415, 422, 503),
            openapi_extra={"requestBody": BODY},
        )
        async def change(model_id: str, request: Request) -> ManualChange:
            check_json(request)
            asked = validate_body(ManualRequest, await request.body())
            find_model_named(request, model_id)
            strategy, engine = asked.strategy, service.engine
            running = engine.find_running(strategy)
            if model_id not in engine.models:
                raise UnknownModel(f"There is no model '{model_id[:100]}'.")
            await (engine.load if name == "load" else engine.unload)(strategy, model_id)
            return ManualChange(model=model_id, strategy=strategy, state=state_of(running.keeper, model_id))

    add("load", "Load a model")
    add("unload", "Unload a model")
    if reread_settings is not None:
        _add_reload(app, service, guard, reread_settings)


def for_operators(token: SecretStr) -> Any:
    """The dependency of a route that only callers with the token may use."""

    def check(credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> None:
        expected = token.get_secret_value().encode()
        if credentials is None or not secrets.compare_digest(credentials.credentials.encode(), expected):
            raise HTTPException(
                401, "Give the server's token as 'Authorization: Bearer …'.", {"WWW-Authenticate": "Bearer"}
            )

    return Depends(check)


def _add_reload(app: FastAPI, service: Service, guard: Sequence[Any], reread_settings: Callable[[], Settings]) -> None:
    @app.post(
        "/reload",
        summary="Read the settings again, and change models and options without a restart",
        dependencies=guard,
        responses=problem_responses(401, 422, 503),
        response_model_exclude_unset=True,
    )
    async def reload() -> StrategiesAnswer:
        try:
            await service.update(await anyio.to_thread.run_sync(reread_settings))
        except NotReady:
            raise
        except ResidencyError as error:
            log.error("The settings stay as they are: %s", error)
            raise HTTPException(422, without_paths(error, Path())) from error
        app.openapi_schema = None  # it lists the models
        return strategies_answer(service)
