"""The log of requests: a middleware that gives each an id, and the format of the log as text or JSON."""

from __future__ import annotations

import logging
import re
import secrets
from time import perf_counter
from typing import Literal

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..serving.queue import request_id
from .problems import FAILED, dialect_of, problem

log = logging.getLogger("residency")
access = logging.getLogger("residency.access")
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
ASKED_METHOD = "residency.method"  # key of a request's scope: HEAD, if that is what the client has asked for
LOG_FIELDS = "residency.log_fields"  # key of a request's scope: what its line in the log says, besides


class AccessLog:
    """ASGI middleware: request ids, a line in the log for each request, a 500 for an unexpected error, and HEAD.

    A HEAD request is answered as a GET without the body, so that its headers are the same.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = perf_counter()
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"").decode("latin-1")
        identity = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        request_id.set(identity)
        scope[LOG_FIELDS] = {}
        is_head = scope["method"] == "HEAD"
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", identity.encode())]
            elif is_head:
                message["body"] = b""
            await send(message)

        try:
            # The server has a scope of its own, and still sees a HEAD.
            inner = {**scope, "method": "GET", ASKED_METHOD: "HEAD"} if is_head else scope
            await self._app(inner, receive, send_with_id)
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            if not status:
                await problem(500, FAILED, dialect=dialect_of(scope))(scope, receive, send_with_id)
        finally:
            if not access.disabled:
                access.info("request", extra=_line(scope, status, perf_counter() - began))


def _line(scope: Scope, status: int, seconds: float) -> dict[str, object]:
    client = scope.get("client")
    return {
        "method": scope["method"],
        "path": scope["path"],
        "status": status,
        "ms": round(seconds * 1e3, 3),
        "client": client[0] if client else None,
        **scope[LOG_FIELDS],
    }


def set_up_logs(style: Literal["text", "json"]) -> None:
    """Write our log where uvicorn writes its own, at the same level, if uvicorn has set up a log.

    With `json`, each line is an object, and our line for each request replaces uvicorn's.
    """
    server, server_access = logging.getLogger("uvicorn"), logging.getLogger("uvicorn.access")
    if server.handlers and not log.handlers:
        log.handlers, log.propagate = server.handlers, False
        log.setLevel(logging.getLogger("uvicorn.error").getEffectiveLevel())  # `--log-level` sets this one
    access.disabled = style == "text" or not server_access.handlers  # it has none after `--no-access-log`
    if style == "json":
        server_access.handlers, server_access.propagate = [], False
        for handler in server.handlers or logging.getLogger().handlers:
            handler.addFilter(_add_request_id)
            handler.setFormatter(
                JsonFormatter(
                    ["levelname", "name", "message", "request_id"],
                    rename_fields={"levelname": "level", "name": "logger"},
                    timestamp="time",
                    reserved_attrs=[*RESERVED_ATTRS, "color_message"],
                )
            )
    else:
        for handler in log.handlers:
            handler.addFilter(_prepend_request_id)


def _add_request_id(record: logging.LogRecord) -> bool:
    record.request_id = request_id.get() or None
    return True


def _prepend_request_id(record: logging.LogRecord) -> bool:
    """For a log as text. A record that passes several handlers is changed once."""
    if request_id.get() and record.name == log.name and not hasattr(record, "request_id"):
        _add_request_id(record)
        record.msg = f"[{request_id.get()}] {record.msg}"
    return True
