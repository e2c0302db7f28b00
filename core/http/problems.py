"""Errors on the wire: RFC 9457 problems, which never hold a path or a traceback."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from .. import errors
from ..config.wrong_values import wrong
from .paths import route_path
from .schemas import Problem

STATUS: dict[type[Exception], int] = {
    errors.UnknownModel: 404,
    errors.UnknownStrategy: 404,
    errors.CannotSteer: 405,
    errors.InUse: 409,
    errors.ModelNotNamed: 422,
    errors.TooManyTexts: 422,
    errors.TextTooLong: 422,
    errors.NoTokens: 422,
    errors.UnknownToken: 422,
    errors.NoFiniteScore: 500,
    errors.WrongTensor: 422,
    errors.WrongTimeout: 422,
    errors.Overloaded: 503,
    errors.DeadlinePassed: 503,
    errors.NotReady: 503,
    errors.LoadFailed: 503,
    errors.ModelCrashed: 503,
    TimeoutError: 503,
}
FAILED = "The server failed at this request; its log holds the reason."
PROTOCOL = "/v2/"
RETRY = {"Retry-After": "1"}
CLIENT_GONE = 499  # nobody reads it; the name is nginx's


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    body = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail)
    # Text that is no valid Unicode may come back to us in a detail; it must not break the answer.
    content = {key: _printable(value) for key, value in body.model_dump().items()}
    return ProblemResponse(content, status, headers)


class ProblemResponse(JSONResponse):
    """A problem; clients of the Open Inference Protocol read its detail under another name."""

    media_type = "application/problem+json"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if f"{route_path(scope)}/".startswith(PROTOCOL):
            content = json.loads(bytes(self.body))
            self.body = self.render(content | {"error": content["detail"]})
            self.headers["Content-Length"] = str(len(self.body))
        await super().__call__(scope, receive, send)


def on_the_wire(response: Response) -> bytes:
    """For where no server writes it: HTTP/1.1, as it leaves."""
    status = f"HTTP/1.1 {response.status_code} {HTTPStatus(response.status_code).phrase}".encode()
    lines = [status, *(b"%b: %b" % header for header in response.raw_headers)]
    return b"\r\n".join([*lines, b"", bytes(response.body)])


def _printable(value: object) -> object:
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value


def _sentence(detail: ErrorDetails) -> str:
    """What is wrong with a part of a request, in the words in which files and variables are told it."""
    if detail["type"] in ("value_error", "json_invalid"):
        return detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        return "is no key here; see /docs"
    return "is required" if detail["type"] == "missing" else wrong(detail)


def add_problem_handlers(app: FastAPI) -> None:
    async def known(request: Request, error: Exception) -> JSONResponse:
        status = next(STATUS[cls] for cls in type(error).__mro__ if cls in STATUS)
        retry = {"Retry-After": str(getattr(error, "seconds", 1))}
        headers = {503: retry, 405: {"Allow": ""}}.get(status)
        return problem(status, str(error), headers)

    for cls in STATUS:
        app.exception_handler(cls)(known)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=CLIENT_GONE)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        sentences = []
        for detail in error.errors():
            where = ".".join(str(part) for part in detail["loc"] if part != "body") or "body"
            sentences.append(f"{where}: {_sentence(detail)}")
        return problem(422, "; ".join(sentences[:5]))

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        return problem(500, FAILED)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 400:  # what FastAPI makes of a body that it cannot parse
            return problem(422, "The body cannot be read as JSON.")
        headers = dict(error.headers or {})
        if "GET" in (methods := set(headers.get("Allow", "").split(", "))):
            headers["Allow"] = ", ".join(sorted(methods | {"HEAD"}))  # which the edge turns into a GET
        return problem(error.status_code, str(error.detail), headers)
