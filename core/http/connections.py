"""The outermost middleware, and uvicorn's protocol classes with limits: slow and abusive clients are cut off.

An ASGI app sees a request when its head is complete. Until then, and while the body arrives, uvicorn limits neither
its time nor its size. So the middleware reaches for the server that runs the app: `receive` of the lifespan scope is a
method of an object with uvicorn's configuration, whose protocol class is first used when the server begins to listen.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..config.settings import Settings
from .joined_writes import JoinedWrites
from .problems import RETRY, dialect_of, http_bytes, problem

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as Base
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
else:
    Base = asyncio.Protocol

log = logging.getLogger("residency")

WIRE_FACTOR = 4  # bytes on the wire for each byte of a body; chunks of two bytes need about that, of one byte more
SHUTDOWN_ANSWER_SECONDS = 1.0  # for the last answers to be sent
MAX_PIPELINED = 64  # requests that a connection may send ahead
LINGER_SECONDS = 1.0  # for a client to read why it is refused
RESET = struct.pack("ii", 1, 0)  # socket(7): close sends a reset
CLOSE = {"Connection": "close"}


class ReceiveLimits(NamedTuple):
    """Limits of one request: the seconds until it is received, the bytes of its head, and the bytes on the wire."""

    seconds: float
    head: int
    wire: int


class Guarded(Base):
    """A mixin for a protocol class of uvicorn: a deadline and a size limit for each request.

    The deadline starts when a connection is opened and, for a later request that arrives in several pieces, with its
    first byte. It ends when the request is received. Between requests, uvicorn's own `timeout_keep_alive` runs.
    """

    limits: ClassVar[ReceiveLimits]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(JoinedWrites.around(transport, self.loop))
        self._received = 0  # bytes of the request that is not complete
        self._refused = False
        # The request that is being answered, if uvicorn's `cycle` is a later one that was pipelined.
        self._running: RequestResponseCycle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None
        self._deadline: asyncio.TimerHandle | None = self.loop.call_later(self.limits.seconds, self._on_deadline)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._deadline, self._unread_timer):
            if timer is not None:
                timer.cancel()
        self._disconnect_app()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._refused:
            before = self.cycle
            self._received += len(data)
            super().data_received(data)
            if self.cycle is not before:  # a new request; if it declares a length, RequestLimits refuses it by that
                announced = any(name == b"content-length" for name, _ in self.cycle.scope["headers"])
                self._received = 0 if announced else len(data)
            self._update_deadline()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._start_unread_timer()
        elif not self.cycle.response_complete:  # the next request, or its head, has arrived already
            self._update_deadline()

    def pause_writing(self) -> None:
        """Called when the client reads no answers, and the buffers are full."""
        super().pause_writing()
        self._start_unread_timer()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread_timer is not None and not self.transport.is_closing():
            self._unread_timer.cancel()
            self._unread_timer = None

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():  # a normal close would wait for the client to read it
            self._abort()
        else:
            super().timeout_keep_alive_handler()

    def send_400_response(self, msg: str) -> None:
        """Called while a parser's error is handled. An error of h11 has a hint if it is one of size."""
        if getattr(sys.exception(), "error_status_hint", 400) == 431:
            self._refuse_size()
        else:
            self._refuse(400, msg)

    def _update_deadline(self) -> None:
        """Start the deadline while a request is being received, and stop it afterwards."""
        cycle = self.cycle
        if cycle is not None and not cycle.more_body and not cycle.response_complete:
            self._received = 0
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None
        elif self._received > self.limits.wire and not (cycle is not None and cycle.response_complete):
            self._abort()  # but the rest of a request that was answered is read, so that the client sees the answer
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.limits.seconds, self._on_deadline)

    def _on_deadline(self) -> None:
        cycle = self.cycle
        if self not in self.connections:  # the connection is a WebSocket now
            return
        if self.flow.read_paused:  # the server makes the client wait
            self._deadline = self.loop.call_later(self.limits.seconds, self._on_deadline)
        elif self._received and (cycle is None or (cycle.response_complete and not cycle.more_body)):
            self._refuse(408, f"The request was not complete after {self.limits.seconds:g} s.")
        else:  # nothing arrived, or a body does not end, or the rest of an answered request does not
            self._abort()

    def _start_unread_timer(self) -> None:
        if self._unread_timer is None:
            self._unread_timer = self.loop.call_later(self.limits.seconds, self._abort)

    def _abort(self) -> None:
        self._disconnect_app()
        if self.transport.get_write_buffer_size():  # the client does not read it, so the kernel must not keep trying
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.transport.abort()

    def _disconnect_app(self) -> None:
        """Make the app see that the client has disconnected: its request is cancelled, and its answer dropped."""
        for cycle in (self._running, self.cycle):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()

    def _refuse_size(self) -> None:
        self._refuse(431, _head_too_large(self.limits.head))

    def _refuse(self, status: int, sentence: str) -> None:
        """Close the connection, after an answer with the error unless a client could take it for another's answer."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            can_answer = cycle is None or not cycle.more_body
        else:
            can_answer = cycle.more_body and not cycle.response_started and self._running in (None, cycle)
        if not can_answer or self.transport.get_write_buffer_size():
            self._abort()
            return
        self._disconnect_app()
        self._refused = True
        self.transport.write(http_bytes(problem(status, sentence, CLOSE)))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        # Read what the client still sends. If the connection were closed now, a reset would discard the answer.
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self.loop.call_later(LINGER_SECONDS, self._abort)


class GuardedHttpTools(Guarded):
    """For httptools, which limits neither heads, chunk extensions and trailers nor the number of pipelined requests."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._unparsed = 0  # bytes since the end of a head, or the last piece of a body

    def data_received(self, data: bytes) -> None:
        self._unparsed += len(data)
        super().data_received(data)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._unparsed = 0
        if not self.pipeline:
            self._running = self.cycle

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self._unparsed = 0

    def on_response_complete(self) -> None:
        if self.pipeline:
            self._running = self.pipeline[-1][0]
        super().on_response_complete()

    def _update_deadline(self) -> None:
        if self._unparsed > self.limits.head and not self._refused:
            self._refuse_size()
        elif len(self.pipeline) > MAX_PIPELINED:
            self._abort()
        else:
            super()._update_deadline()


MIXINS = {  # by the module of uvicorn's class, so that only the class in use is imported
    "uvicorn.protocols.http.httptools_impl": GuardedHttpTools,
    "uvicorn.protocols.http.h11_impl": Guarded,  # h11 limits itself, by `h11_max_incomplete_event_size`
}


def _head_too_large(limit: int) -> str:
    return f"The header fields are over the limit of {limit} bytes."


class ConnectionLimits:
    """ASGI middleware that limits connections. It must be the outermost: another one would hide uvicorn's `receive`."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        wire = settings.max_header + WIRE_FACTOR * settings.max_body
        self._limits = ReceiveLimits(settings.receive_timeout, settings.max_header, wire)
        self._shutdown_timeout = settings.shutdown_timeout
        self._active = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
        elif scope["type"] == "lifespan":
            self._guard(getattr(getattr(receive, "__self__", None), "config", None))
            await self._app(scope, self._delay_shutdown(receive), send)
        else:
            await self._app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if _head_size(scope) > self._limits.head:  # it arrived in one piece
            await problem(431, _head_too_large(self._limits.head), CLOSE, dialect_of(scope))(scope, receive, send)
            return
        self._active += 1
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:  # uvicorn cancels requests at the end of its graceful shutdown
            with suppress(RuntimeError):  # the answer has begun
                shutting_down = problem(503, "The server is shutting down.", CLOSE | RETRY, dialect_of(scope))
                await shutting_down(scope, receive, send)
        finally:
            self._active -= 1

    def _delay_shutdown(self, receive: Receive) -> Receive:
        """Delay the shutdown until the requests that uvicorn has cancelled have received their 503."""

        async def receive_delayed() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                with suppress(TimeoutError):
                    async with asyncio.timeout(SHUTDOWN_ANSWER_SECONDS):
                        while self._active:
                            await asyncio.sleep(0.005)
            return message

        return receive_delayed

    def _guard(self, config: Any) -> None:
        """Add the mixin to the protocol class of the server that runs this app, and of no other server."""
        protocol = getattr(config, "http_protocol_class", object)
        if issubclass(protocol, Guarded):
            return
        mixin = MIXINS.get(protocol.__module__)
        if mixin is None:
            log.warning(
                "The limits for slow clients and for the shutdown have no effect: they need uvicorn with HTTP/1.1."
            )
            return
        config.http_protocol_class = type(f"Guarded{protocol.__name__}", (mixin, protocol), {"limits": self._limits})
        if config.h11_max_incomplete_event_size is None:
            config.h11_max_incomplete_event_size = self._limits.head
        if config.timeout_graceful_shutdown is None:
            config.timeout_graceful_shutdown = self._shutdown_timeout


def _head_size(scope: MutableMapping[str, Any]) -> int:
    """The size of the request's head in bytes, about: the parser drops some spaces."""
    headers = scope["headers"]
    size = (
        len(scope.get("raw_path") or b"") + len(scope["query_string"]) + 4 * len(headers)
    )  # ": " and the end of the line
    return size + sum(len(name) + len(value) for name, value in headers)
