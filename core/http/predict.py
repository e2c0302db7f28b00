"""`POST /predict…`: one route for each strategy, and what a prediction costs in time."""

from __future__ import annotations

import asyncio
import codecs
import json
import re
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import Receive

from ..contracts import Prediction
from ..errors import WrongTimeout
from ..serving.answer import Answer
from ..serving.service import Service
from .edge import EVENT
from .openapi import PREDICTING, problems, steering_links
from .problems import CLIENT_GONE
from .schemas import (
    ANSWER_EXAMPLE,
    REQUEST_EXAMPLES,
    LabelScore,
    PredictAnswer,
    PredictRequest,
    TextAnswer,
)

Result = TypeVar("Result")
Wanted = TypeVar("Wanted", bound=BaseModel)
Answering = Callable[[Request], Awaitable[Response]]
NO_TOKEN = re.compile(r"[^A-Za-z0-9_-]+")
MANY_ERRORS = 20
BODY = {
    "required": True,
    "content": {"application/json": {"schema": PredictRequest.model_json_schema(), "examples": REQUEST_EXAMPLES}},
}
TIMEOUT: dict[str, Any] = {
    "name": "X-Request-Timeout",
    "in": "header",
    "description": "seconds, past which the request is not begun; only shorter than the server's own",
    "schema": {"type": "number", "exclusiveMinimum": 0},
}


def add_predict_routes(app: FastAPI, service: Service, *, steered: bool) -> None:
    """`steered`: whether there are routes that load and unload."""
    for declared in service.strategies:
        predict = _predict_route(service, declared.name)
        links = {"links": steering_links("/model", "/strategy")} if steered and declared.decisions.shared else {}
        example = {"strategy": declared.name} | ANSWER_EXAMPLE
        answered = {"model": PredictAnswer, "content": {"application/json": {"example": example}}, **links}
        add_post(
            app,
            declared.registered.route,
            predict,
            predict,
            summary=declared.registered.summary,
            name=declared.name,
            responses={200: answered, **problems(*PREDICTING)},
            openapi_extra={"requestBody": BODY, "parameters": [TIMEOUT]},
        )


def add_post(app: FastAPI, path: str, answer: Answering, documented: Callable[..., Any], **more: Any) -> None:
    """FastAPI's own route is for the documentation; a plain one before it takes half the time."""
    app.router.routes.append(Route(path, answer, methods=["POST"]))
    app.post(path, response_class=Response, **more)(documented)


def _predict_route(service: Service, strategy: str) -> Answering:
    async def predict(request: Request) -> Response:
        # Read and written by hand: what FastAPI does for every body takes longer than the rest of the way.
        wanted = parse(await request.body(), request)
        done = await predicted(request, service, strategy, wanted.model, wanted.all_texts())
        if done is None:
            return Response(status_code=CLIENT_GONE)
        model_id, answer = done
        body = PredictAnswer(
            strategy=strategy,
            model=model_id,
            predictions=[_told(prediction, wanted.labels) for prediction in answer.predictions],
            cold=answer.cold,
        )
        content = body.model_dump_json(exclude_unset=True)
        return Response(content, media_type="application/json", headers=headers_of(answer))

    return predict


def _told(prediction: Prediction, labels: int | None) -> TextAnswer:
    label, score = prediction
    if labels == 0:
        return TextAnswer(label=label, score=score)
    top = [LabelScore(label=each, score=of_it) for each, of_it in prediction.ranked()[:labels]]
    return TextAnswer(label=label, score=score, top=top)


def headers_of(answer: Answer) -> dict[str, str]:
    """What the headers tell of an answer: where its time went, and which version of the model gave it."""
    headers = {"Server-Timing": server_timing(answer)}
    if answer.version and answer.version.name:
        headers["X-Model-Version"] = answer.version.name
    return headers


def parse(body: bytes, request: Request) -> PredictRequest:
    """Raises RequestValidationError, or HTTPException for what is not JSON."""
    check_json(request)
    return validated(PredictRequest, body)


def check_json(request: Request) -> None:
    """Raise HTTPException for a body that is not said to be JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise HTTPException(415, "Send the body as JSON, with the header Content-Type: application/json.")


def validated(model: type[Wanted], body: bytes) -> Wanted:
    """Raises RequestValidationError, or HTTPException for what is not UTF-8. A byte order mark is passed over."""
    body = body.removeprefix(codecs.BOM_UTF8)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        _check_utf8(body)
        if error.error_count() > MANY_ERRORS:  # nobody reads them, and to write them takes seconds
            raise HTTPException(422, "The body does not fit the schema in many places; see /docs.") from None
        raise RequestValidationError(error.errors(include_url=False)) from error


def _check_utf8(body: bytes) -> None:
    """Raise HTTPException for a body in another encoding, which its zero bytes or its byte order mark give away."""
    encoding = json.detect_encoding(body)
    if encoding != "utf-8":
        raise HTTPException(422, f"The body must be UTF-8; it looks like {encoding.upper()}.")
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise HTTPException(422, f"The body must be UTF-8, which its byte {error.start} is not.") from None


async def predicted(
    request: Request, service: Service, strategy: str, model: str | None, texts: Sequence[str]
) -> tuple[str, Answer] | None:
    """The model's id and the answer, within the request's own deadline; None when the client goes first."""
    given = request.headers.get(TIMEOUT["name"])
    timeout = None if given is None else _seconds(given)
    done = await while_connected(request.receive, service.predict(strategy, model, texts, timeout))
    if done is not None:
        request.scope[EVENT] |= event(strategy, *done)
    return done


def _seconds(timeout: str) -> float:
    try:
        seconds = float(timeout)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise WrongTimeout(f"{TIMEOUT['name']} must be a number of seconds above 0.")
    return seconds


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


def event(strategy: str, model_id: str, answer: Answer) -> dict[str, Any]:
    """What the log says of a request that was answered; times in milliseconds."""
    parts = {"queue_ms": answer.queue, "load_ms": answer.load, "inference_ms": answer.inference}
    about = {"strategy": strategy, "model": model_id, "cold": answer.cold, "batch": answer.batch}
    return about | {name: round(seconds * 1e3, 3) for name, seconds in parts.items()}


def server_timing(answer: Answer) -> str:
    """https://www.w3.org/TR/server-timing/, in milliseconds; a load's phases are named `load-<phase>`."""
    parts = {"queue": answer.queue, "load": answer.load}
    # A plugin names its phases; a header takes only tokens.
    parts |= {f"load-{NO_TOKEN.sub('-', phase)}": seconds for phase, seconds in answer.phases.items()}
    parts["inference"] = answer.inference
    return ", ".join(f"{name};dur={seconds * 1e3:.3f}" for name, seconds in parts.items())
