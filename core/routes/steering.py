"""`POST /models/{id}/load` and `/unload`: only on a server that was given a token."""

from __future__ import annotations

import secrets
from typing import Annotated, Literal

from fastapi import Depends, FastAPI, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import SecretStr
from starlette.exceptions import HTTPException

from ..errors import NotReady, UnknownModel, UnknownStrategy
from ..schemas import Steered, SteerRequest
from ..serving.residency import state_of
from ..serving.service import Service
from .openapi import problems
from .predict import check_json, validated

bearer = HTTPBearer(auto_error=False)
BODY = {"required": True, "content": {"application/json": {"schema": SteerRequest.model_json_schema()}}}


def add_steering(app: FastAPI, service: Service, token: SecretStr) -> None:
    def check(given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> None:
        wanted = token.get_secret_value().encode()
        if given is None or not secrets.compare_digest(given.credentials.encode(), wanted):
            raise HTTPException(
                401, "Give the server's token as 'Authorization: Bearer …'.", {"WWW-Authenticate": "Bearer"}
            )

    def add(name: str, action: Literal["preload", "evict"], summary: str) -> None:
        @app.post(
            f"/models/{{model_id}}/{name}",
            summary=summary,
            operation_id=f"{name}_model",
            dependencies=[Depends(check)],
            responses=problems(401, 404, 405, 409, 413, 415, 422, 503),
            openapi_extra={"requestBody": BODY},
        )
        async def steer(model_id: str, request: Request) -> Steered:
            check_json(request)
            wanted = validated(SteerRequest, await request.body())
            mounted = next((each for each in service.mounted if each.name == wanted.strategy), None)
            if mounted is None:
                raise UnknownStrategy(f"There is no strategy '{wanted.strategy[:100]}' here.")
            if not service.ready or mounted.host is None:
                raise NotReady("The models that are loaded at start-up are not in memory yet; try again soon.")
            if model_id not in mounted.host.model_ids:
                raise UnknownModel(f"There is no model '{model_id[:100]}'.")
            await service.steer(mounted, action, model_id)
            return Steered(model=model_id, strategy=mounted.name, state=state_of(mounted.host, model_id))

    add("load", "preload", "Bring a model into memory")
    add("unload", "evict", "Take a model out of memory")
