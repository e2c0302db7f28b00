"""Slow and abusive clients are cut off, and no client holds up the server's end.

An ASGI app sees a request when its head is complete. Until then, and while the body comes, uvicorn bounds neither
its time nor its size. So the app reaches for the server that runs it: `receive` of the lifespan scope is a method
of an object with uvicorn's configuration, whose protocol class is first used when the server begins to listen.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..config.settings import Settings
from .guarded import (
    CLOSE,
    MIXINS,
    Guarded,
    Limits,
    too_large,
)
from .problems import RETRY, problem

log = logging.getLogger("residency")

WIRE_FACTOR = 4  # bytes on the wire for one of the body: chunks of two bytes are foolish, of one an attack
FAREWELL_SECONDS = 1.0  # for the last answers to leave


class ConnectionLimits:
    """ASGI middleware, the outermost: what others make of the lifespan scope's `receive` hides the server."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        wire = settings.max_header + WIRE_FACTOR * settings.max_body
        self._limits = Limits(settings.receive_timeout, settings.max_header, wire)
        self._shutdown_timeout = settings.shutdown_timeout
        self._answering = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
        elif scope["type"] == "lifespan":
            self._guard(getattr(getattr(receive, "__self__", None), "config", None))
            await self._app(scope, self._after_the_answers(receive), send)
        else:
            await self._app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if _head_size(scope) > self._limits.head:  # it came in one piece
            await problem(431, too_large(self._limits.head), CLOSE)(scope, receive, send)
            return
        self._answering += 1
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:  # the server ends, and its time for that is over
            with suppress(RuntimeError):  # the answer has begun
                await problem(503, "The server is shutting down.", CLOSE | RETRY)(scope, receive, send)
        finally:
            self._answering -= 1

    def _after_the_answers(self, receive: Receive) -> Receive:
        """Requests that the server has given up are answered before the end goes on."""

        async def received() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                with suppress(TimeoutError):
                    async with asyncio.timeout(FAREWELL_SECONDS):
                        while self._answering:
                            await asyncio.sleep(0.005)
            return message

        return received

    def _guard(self, config: Any) -> None:
        """Put our own before the protocol class of the one server that runs this app; no other is touched."""
        protocol = getattr(config, "http_protocol_class", object)
        if issubclass(protocol, Guarded):
            return
        mixin = MIXINS.get(protocol.__module__)
        if mixin is None:
            log.warning("The limits of slow clients and of the shutdown have no effect: they need uvicorn's HTTP/1.1.")
            return
        config.http_protocol_class = type(f"Guarded{protocol.__name__}", (mixin, protocol), {"limits": self._limits})
        if config.h11_max_incomplete_event_size is None:
            config.h11_max_incomplete_event_size = self._limits.head
        if config.timeout_graceful_shutdown is None:
            config.timeout_graceful_shutdown = self._shutdown_timeout


def _head_size(scope: MutableMapping[str, Any]) -> int:
    """Of the request's head, in bytes, give or take what the parser has left out."""
    headers = scope["headers"]
    size = len(scope.get("raw_path") or b"") + len(scope["query_string"]) + 4 * len(headers)  # ": " and an end of line
    return size + sum(len(name) + len(value) for name, value in headers)
