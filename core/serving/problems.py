"""Errors on the wire: RFC 9457 problems, which never hold a path or a traceback."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ..errors import (
    DeadlinePassed,
    LoadFailed,
    ModelCrashed,
    NotReady,
    Overloaded,
    ResidencyError,
    TextTooLong,
    TooManyTexts,
    UnknownModel,
    WrongTimeout,
)
from ..schemas import Problem

RETRY = {"Retry-After": "1"}
CLIENT_GONE = 499  # nobody reads it; the name is nginx's


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    body = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail)
    # Text that is no valid Unicode may come back to us in a detail; it must not break the answer.
    content = {key: _printable(value) for key, value in body.model_dump().items()}
    return JSONResponse(content, status, headers, "application/problem+json")


def on_the_wire(response: Response) -> bytes:
    """For where no server writes it: HTTP/1.1, as it leaves."""
    status = f"HTTP/1.1 {response.status_code} {HTTPStatus(response.status_code).phrase}".encode()
    lines = [status, *(b"%b: %b" % header for header in response.raw_headers)]
    return b"\r\n".join([*lines, b"", bytes(response.body)])


def _printable(value: object) -> object:
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value


def add_problem_handlers(app: FastAPI) -> None:
    @app.exception_handler(UnknownModel)
    async def unknown_model(request: Request, error: UnknownModel) -> JSONResponse:
        return problem(404, str(error))

    @app.exception_handler(TooManyTexts)
    @app.exception_handler(TextTooLong)
    @app.exception_handler(WrongTimeout)
    async def too_many(request: Request, error: ResidencyError) -> JSONResponse:
        return problem(422, str(error))

    @app.exception_handler(Overloaded)
    async def overloaded(request: Request, error: Overloaded) -> JSONResponse:
        return problem(503, str(error), {"Retry-After": str(error.seconds)})

    @app.exception_handler(DeadlinePassed)
    @app.exception_handler(NotReady)
    @app.exception_handler(LoadFailed)
    @app.exception_handler(ModelCrashed)
    @app.exception_handler(TimeoutError)
    async def unavailable(request: Request, error: ResidencyError | TimeoutError) -> JSONResponse:
        return problem(503, str(error), RETRY)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=CLIENT_GONE)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        sentences = []
        for detail in error.errors():
            where = ".".join(str(part) for part in detail["loc"] if part != "body") or "body"
            sentences.append(f"{where}: {detail['msg'].removeprefix('Value error, ')}")
        return problem(422, "; ".join(sentences[:5]))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 400:  # what FastAPI makes of a body that it cannot parse
            return problem(422, "The body cannot be read as JSON.")
        return problem(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        return problem(500, "The server failed at this request; its log holds the reason.")
