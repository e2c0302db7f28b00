"""Errors in answers: RFC 9457 problems, which never hold a path of this machine or a traceback."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Scope

from .. import errors
from ..config.wrong_values import explain
from .schemas import MessageProblem, Problem, ProblemOfOpenAI, ProtocolProblem

STATUS: dict[type[Exception], int] = {
    errors.UnknownModel: 404,
    errors.UnknownStrategy: 404,
    errors.CannotDo: 404,
    errors.CannotLoadManually: 405,
    errors.InUse: 409,
    errors.ModelNotNamed: 422,
    errors.TooManyTexts: 422,
    errors.TextTooLong: 422,
    errors.NoTokens: 422,
    errors.UnknownToken: 422,
    errors.NoFiniteScore: 500,
    errors.InvalidTensor: 422,
    errors.InvalidTimeout: 422,
    errors.Overloaded: 503,
    errors.DeadlineExceeded: 503,
    errors.NotReady: 503,
    errors.LoadFailed: 503,
    errors.ModelCrashed: 503,
    errors.ForwardFailed: 502,
    TimeoutError: 503,
}
FAILED = "The server failed to answer this request; its log holds the reason."
STRATEGY = r"(?:/(?!(?:v1|v2|tasks|models|upstream)/)[^/]+)?"  # that a path may begin with
DIALECTS: tuple[tuple[re.Pattern[str], type[Problem]], ...] = (
    (re.compile(rf"{STRATEGY}(?:/v[12])?/rerank(?:ing)?"), MessageProblem),
    (re.compile(r"/v2(?:/.*)?"), ProtocolProblem),
    (re.compile(rf"{STRATEGY}/embed"), MessageProblem),
    (re.compile(rf"{STRATEGY}/models/(?!.+/(?:un)?load$).+"), MessageProblem),
    (re.compile(rf"{STRATEGY}/v1(?:/.*)?"), ProblemOfOpenAI),
    (
        re.compile(
            rf"{STRATEGY}/(?:chat/completions|completions?|responses|messages|embeddings?|infill|audio/.*|images/.*)"
        ),
        ProblemOfOpenAI,
    ),
)
"""The form of errors, by the path; elsewhere Problem. The first that matches holds."""
RETRY = {"Retry-After": "1"}
CLIENT_GONE = 499  # never sent; nginx uses this status in its log for a request that its client has cancelled


class ProblemResponse(JSONResponse):
    media_type = "application/problem+json"


def status_of(error: Exception) -> int | None:
    """The status of an error that is expected, or None."""
    return next((STATUS[cls] for cls in type(error).__mro__ if cls in STATUS), None)


def problem(
    status: int, detail: str, headers: Mapping[str, str] | None = None, dialect: type[Problem] = Problem
) -> Response:
    """The response for an error."""
    # The detail may quote a request that is not valid Unicode.
    detail = detail.encode("utf-8", "replace").decode("utf-8")
    return ProblemResponse(dialect.of(status, detail).model_dump(), status, headers)


def dialect_of(scope: Scope) -> type[Problem]:
    """The form that the clients of the request's path expect of an error."""
    return dialect_of_path(route_path(scope))


@lru_cache(1024)
def dialect_of_path(path: str) -> type[Problem]:
    """The form that the clients of a path expect of an error."""
    return next((dialect for pattern, dialect in DIALECTS if pattern.fullmatch(path)), Problem)


def route_path(scope: Scope) -> str:
    """The request's path without the prefix under which the app is served (`--root-path`, or where it is mounted).

    A proxy may have removed the prefix already.
    """
    path: str = scope["path"]
    prefix: str = scope.get("root_path", "").rstrip("/")
    return path[len(prefix) :] if path.startswith(f"{prefix}/") else path


def http_bytes(response: Response) -> bytes:
    """The response in HTTP/1.1, for a connection on which no server writes it."""
    status = f"HTTP/1.1 {response.status_code} {HTTPStatus(response.status_code).phrase}".encode()
    lines = [status, *(b"%b: %b" % header for header in response.raw_headers)]
    return b"\r\n".join([*lines, b"", bytes(response.body)])


def _sentence(detail: ErrorDetails) -> str:
    """What is wrong with a part of a request, in the words that are used for files and variables."""
    if detail["type"] in ("value_error", "json_invalid"):
        return detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        return "is no key here; see /docs"
    return "is required" if detail["type"] == "missing" else explain(detail)


def add_problem_handlers(app: FastAPI) -> None:
    """Answer every error with a problem, in the dialect of the request's path."""

    async def answer_known(request: Request, error: Exception) -> Response:
        status = next(STATUS[cls] for cls in type(error).__mro__ if cls in STATUS)
        retry = {"Retry-After": str(getattr(error, "seconds", 1))}
        headers = {503: retry, 405: {"Allow": ""}}.get(status)
        return problem(status, str(error), headers, dialect_of(request.scope))

    for cls in STATUS:
        app.exception_handler(cls)(answer_known)

    @app.exception_handler(ClientDisconnect)
    async def answer_nobody(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=CLIENT_GONE)

    @app.exception_handler(RequestValidationError)
    async def answer_invalid(request: Request, error: RequestValidationError) -> Response:
        sentences = []
        for detail in error.errors():
            where = ".".join(str(part) for part in detail["loc"] if part != "body") or "body"
            sentences.append(f"{where}: {_sentence(detail)}")
        return problem(422, "; ".join(sentences[:5]), dialect=dialect_of(request.scope))

    @app.exception_handler(Exception)
    async def answer_unexpected(request: Request, error: Exception) -> Response:
        return problem(500, FAILED, dialect=dialect_of(request.scope))

    @app.exception_handler(HTTPException)
    async def answer_http(request: Request, error: HTTPException) -> Response:
        status, detail, headers = error.status_code, str(error.detail), dict(error.headers or {})
        if status == 400:  # FastAPI's status for a body that it cannot parse
            status, detail, headers = 422, "The body cannot be read as JSON.", {}
        if "GET" in (methods := set(headers.get("Allow", "").split(", "))):
            headers["Allow"] = ", ".join(sorted(methods | {"HEAD"}))  # `AccessLog` answers HEAD, too
        return problem(status, detail, headers, dialect_of(request.scope))
