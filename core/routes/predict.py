"""`POST /predict…`: one route for each strategy, and what a prediction costs in time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import Receive

from ..schemas import REQUEST_EXAMPLES, LabelScore, PredictAnswer, PredictRequest, Problem
from ..serving.lane import Answer
from ..serving.problems import CLIENT_GONE
from ..serving.service import Mounted, Service

Result = TypeVar("Result")
NO_TOKEN = re.compile(r"[^A-Za-z0-9_-]+")
PROBLEMS: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "There is no such model"},
    413: {"model": Problem, "description": "The body is over the limit"},
    415: {"model": Problem, "description": "The body is not JSON"},
    422: {"model": Problem, "description": "The body or a header does not fit"},
    503: {"model": Problem, "description": "Overloaded, too late, not ready, or the model cannot be loaded"},
}
BODY = {
    "required": True,
    "content": {"application/json": {"schema": PredictRequest.model_json_schema(), "examples": REQUEST_EXAMPLES}},
}
TIMEOUT = {
    "name": "X-Request-Timeout",
    "in": "header",
    "description": "seconds, past which the request is not begun; only shorter than the server's own",
    "schema": {"type": "number", "exclusiveMinimum": 0},
}


def add_predict_routes(app: FastAPI, service: Service) -> None:
    for mounted in service.mounted:
        predict = _predict_route(service, mounted)
        # FastAPI's own route below is for the documentation; a plain one before it takes half the time.
        app.router.routes.append(Route(mounted.route, predict, methods=["POST"]))
        app.post(
            mounted.route,
            summary=mounted.registered.summary,
            name=mounted.name,
            response_class=Response,
            responses={200: {"model": PredictAnswer}, **PROBLEMS},
            openapi_extra={"requestBody": BODY, "parameters": [TIMEOUT]},
        )(predict)


def _predict_route(service: Service, mounted: Mounted) -> Callable[[Request], Awaitable[Response]]:
    async def predict(request: Request) -> Response:
        # Read and written by hand: what FastAPI does for every body takes longer than the rest of the way.
        wanted = parse(await request.body(), request)
        timeout = request.headers.get("x-request-timeout")
        predicted = service.predict(mounted, wanted.model, wanted.all_texts(), timeout)
        done = await while_connected(request.receive, predicted)
        if done is None:
            return Response(status_code=CLIENT_GONE)
        model_id, answer = done
        body = PredictAnswer(
            strategy=mounted.name,
            model=model_id,
            predictions=[LabelScore(label=label, score=score) for label, score in answer.predictions],
            cold=answer.cold,
        )
        return Response(
            body.model_dump_json(), media_type="application/json", headers={"Server-Timing": server_timing(answer)}
        )

    return predict


def parse(body: bytes, request: Request) -> PredictRequest:
    """Raises RequestValidationError, or HTTPException for what is not JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise HTTPException(415, "Send the body as JSON, with the header Content-Type: application/json.")
    try:
        return PredictRequest.model_validate_json(body)
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_url=False, include_context=False)) from error


async def while_connected(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result | None:
    """The work's result, or None when the client goes first, which ends the work."""
    task = asyncio.current_task()
    assert task is not None
    gone = asyncio.ensure_future(receive())
    gone.add_done_callback(task.cancel)
    try:
        return await work
    except asyncio.CancelledError:
        if not gone.done() or gone.cancelled():
            raise  # it is the server that ends
        return None
    finally:
        gone.remove_done_callback(task.cancel)
        gone.cancel()


def server_timing(answer: Answer) -> str:
    """https://www.w3.org/TR/server-timing/, in milliseconds; a load's phases are named `load-<phase>`."""
    parts = {"queue": answer.queue, "load": answer.load}
    # A plugin names its phases; a header takes only tokens.
    parts |= {f"load-{NO_TOKEN.sub('-', phase)}": seconds for phase, seconds in answer.phases.items()}
    parts["inference"] = answer.inference
    return ", ".join(f"{name};dur={seconds * 1e3:.3f}" for name, seconds in parts.items())
