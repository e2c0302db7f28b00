"""`POST /predict…`: one route for each strategy; and what all routes that predict have in common."""

from __future__ import annotations

import asyncio
import codecs
import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.routing import request_response
from starlette.types import Receive

from ..contracts import Prediction
from ..errors import InvalidTimeout
from ..serving.events import Answer
from ..serving.service import Service
from ..tasks.classify import CLASSIFY
from ..tasks.task import Task
from .access import LOG_FIELDS
from .openapi import PREDICTING, admin_links, problem_responses
from .problems import CLIENT_GONE
from .schemas import ANSWER_EXAMPLE, REQUEST_EXAMPLES, LabelScore, PredictAnswer, PredictRequest, TextAnswer

Result = TypeVar("Result")
Body = TypeVar("Body", bound=BaseModel)
Endpoint = Callable[[Request], Awaitable[Response]]
NOT_TOKEN = re.compile(r"[^A-Za-z0-9_-]+")
MAX_ERRORS = 20
MODEL_HEADER = "X-Model"
BODY = {
    "required": True,
    "content": {"application/json": {"schema": PredictRequest.model_json_schema(), "examples": REQUEST_EXAMPLES}},
}
TIMEOUT: dict[str, Any] = {
    "name": "X-Request-Timeout",
    "in": "header",
    "description": "seconds within which the request must begin; the server's own timeout still holds",
    "schema": {"type": "number", "exclusiveMinimum": 0},
}


def add_predict_routes(app: FastAPI, service: Service, *, has_admin_routes: bool) -> None:
    """Add a route for each strategy. With `has_admin_routes`, its answers link to those that load and unload."""
    for declared in service.strategies:
        predict = _answer_with(service, declared.name)
        links = {"links": admin_links("/model", "/strategy")} if has_admin_routes and declared.decisions.shared else {}
        example = {"strategy": declared.name} | ANSWER_EXAMPLE
        answered = {"model": PredictAnswer, "content": {"application/json": {"example": example}}, **links}
        add_prediction_route(
            app,
            declared.registered.route,
            predict,
            predict,
            summary=declared.registered.summary,
            name=declared.name,
            responses={200: answered, **problem_responses(*PREDICTING)},
            openapi_extra={"requestBody": BODY, "parameters": [TIMEOUT]},
        )


def add_prediction_route(
    app: FastAPI, path: str, answer: Endpoint, documented: Callable[..., Any], **description: Any
) -> None:
    """Let `answer` respond to `POST path`. The signature of `documented` and `description` go to the OpenAPI document.

    FastAPI's own handling of a body takes longer than everything else in a request to a small model.
    """

    class PlainRoute(APIRoute):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.app = request_response(answer)

    app.router.add_api_route(
        path, documented, methods=["POST"], response_class=Response, route_class_override=PlainRoute, **description
    )


def _answer_with(service: Service, strategy: str) -> Endpoint:
    async def predict(request: Request) -> Response:
        asked = parse(await request.body(), request)
        answered = await run_prediction(request, service, strategy, asked.model, asked.all_texts())
        if answered is None:
            return Response(status_code=CLIENT_GONE)
        model_id, answer = answered
        body = PredictAnswer(
            strategy=strategy,
            model=model_id,
            predictions=[_text_answer(prediction, asked.top_labels) for prediction in answer.results],
            cold=answer.cold,
        )
        content = body.model_dump_json(exclude_unset=True)
        return Response(content, media_type="application/json", headers=answer_headers(answer))

    return predict


def _text_answer(prediction: Prediction, labels: int | None) -> TextAnswer:
    label, score = prediction
    if labels == 0:
        return TextAnswer(label=label, score=score)
    top = [LabelScore(label=each, score=of_it) for each, of_it in prediction.ranked()[:labels]]
    return TextAnswer(label=label, score=score, top=top)


def answer_headers(answer: Answer) -> dict[str, str]:
    """The headers of an answer: its timing, and the version of the model."""
    headers = {"Server-Timing": server_timing(answer)}
    if answer.version and answer.version.name:
        headers["X-Model-Version"] = answer.version.name
    return headers


def parse(body: bytes, request: Request) -> PredictRequest:
    """The request in a JSON body. Raises RequestValidationError, or HTTPException if it is not declared to be JSON."""
    check_json(request)
    return validate_body(PredictRequest, body)


def check_json(request: Request) -> None:
    """Raise HTTPException unless the content type is JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise HTTPException(415, "Send the body as JSON, with the header Content-Type: application/json.")


def validate_body(model: type[Body], body: bytes) -> Body:
    """The body as an object of `model`. A byte order mark is ignored.

    Raises RequestValidationError, or HTTPException if the body is not UTF-8, or a key stands twice in an object.
    """
    body = body.removeprefix(codecs.BOM_UTF8)
    try:
        valid = model.model_validate_json(body)
    except ValidationError as error:
        _check_utf8(body)
        if error.error_count() > MAX_ERRORS:  # to write thousands of errors takes seconds
            raise HTTPException(422, "The body does not fit the schema in many places; see /docs.") from None
        raise RequestValidationError(error.errors(include_url=False)) from error
    KEY_CHECK.decode(body.decode())  # it takes a few microseconds; pydantic keeps the last of the values
    return valid


def _check_keys(pairs: list[tuple[str, Any]]) -> None:
    """Raise HTTPException for a key that stands twice: a balancer may read the one value and this server the other."""
    if len(dict(pairs)) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise HTTPException(422, f"The key {twice[:100]!r} stands twice in the same object of the body; send it once.")


def _check_utf8(body: bytes) -> None:
    """Raise HTTPException for a body in another encoding, detected by its zero bytes or its byte order mark."""
    encoding = json.detect_encoding(body)
    if encoding != "utf-8":
        raise HTTPException(422, f"The body must be UTF-8; it looks like {encoding.upper()}.")
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise HTTPException(422, f"The body must be UTF-8; its byte {error.start} is not.") from None


KEY_CHECK = json.JSONDecoder(object_pairs_hook=_check_keys)


async def run_prediction(
    request: Request, service: Service, strategy: str, model: str | None, items: Sequence[Any], task: Task = CLASSIFY
) -> tuple[str, Answer] | None:
    """The model's id and the answer, within the deadline of the request. None if the client disconnects.

    `model` is what the body or the path names; if it is None, the header X-Model may name one.
    """
    model = find_model_named(request, model)
    answered = await run_while_connected(
        request.receive, service.predict(strategy, model, items, timeout_of(request), task)
    )
    if answered is not None:
        request.scope[LOG_FIELDS] |= log_fields(strategy, *answered)
    return answered


def find_model_named(request: Request, model: str | None) -> str | None:
    """The model of a request whose body or path names `model`. Raises HTTPException if a header names another one."""
    headers = {name for name in request.headers.getlist(MODEL_HEADER) if name}
    named = headers if model is None else headers | {model}
    if len(named) > 1:
        raise HTTPException(
            422, f"The request names several models: {MODEL_HEADER} must be the same as in the body or in the path."
        )
    return next(iter(named), None)


def timeout_of(request: Request) -> float | None:
    """The seconds within which the request must begin, by its header. Raises InvalidTimeout."""
    given = request.headers.get(TIMEOUT["name"])
    if given is None:
        return None
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise InvalidTimeout(f"{TIMEOUT['name']} must be a number of seconds above 0.")
    return seconds


async def run_while_connected(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result | None:
    """The result of the work. None if the client disconnects, which cancels the work."""
    task = asyncio.current_task()
    assert task is not None
    disconnected = asyncio.ensure_future(receive())
    disconnected.add_done_callback(task.cancel)
    try:
        return await work
    except asyncio.CancelledError:
        if not disconnected.done() or disconnected.cancelled():
            raise  # the server is shutting down
        return None
    finally:
        disconnected.remove_done_callback(task.cancel)
        disconnected.cancel()


def log_fields(strategy: str, model_id: str, answer: Answer) -> dict[str, Any]:
    """The fields of the access log for a request that was answered; times in milliseconds."""
    parts = {"queue_ms": answer.queue, "load_ms": answer.load, "inference_ms": answer.inference}
    about = {"strategy": strategy, "model": model_id, "cold": answer.cold, "batch": answer.batch}
    return about | {name: round(seconds * 1e3, 3) for name, seconds in parts.items()}


def server_timing(answer: Answer) -> str:
    """The value of `Server-Timing` (https://www.w3.org/TR/server-timing/), in milliseconds.

    The phases of a load are named `load-<phase>`.
    """
    parts = {"queue": answer.queue, "load": answer.load}
    # Plugins name phases freely, but the header allows only tokens.
    parts |= {f"load-{NOT_TOKEN.sub('-', phase)}": seconds for phase, seconds in answer.phases.items()}
    parts["inference"] = answer.inference
    return ", ".join(f"{name};dur={seconds * 1e3:.3f}" for name, seconds in parts.items())
