"""What stands before uvicorn's own protocol classes: a deadline and a bound on the size of each request."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from .problems import on_the_wire, problem

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as Base
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
else:
    Base = asyncio.Protocol

PIPELINED = 64  # requests that a connection may send ahead
LINGER_SECONDS = 1.0  # for a client to read why it is refused
RESET = struct.pack("ii", 1, 0)  # socket(7)
CLOSE = {"Connection": "close"}


class Limits(NamedTuple):
    """Of one request: the seconds until it is received, the bytes of its head, and those in all."""

    seconds: float
    head: int
    wire: int


class Guarded(Base):
    """Stands before a protocol class of uvicorn.

    A deadline runs from the opening of a connection, and from the first byte of a later request that comes in
    several pieces, until the request is received. In between, uvicorn's own `timeout_keep_alive` runs.
    """

    limits: ClassVar[Limits]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._received = 0  # bytes of the request that is not complete
        self._refused = False
        self._running: RequestResponseCycle | None = None  # where uvicorn's `cycle` is one that was sent ahead
        self._unread: asyncio.TimerHandle | None = None
        self._deadline: asyncio.TimerHandle | None = self.loop.call_later(self.limits.seconds, self._too_late)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._deadline, self._unread):
            if timer is not None:
                timer.cancel()
        self._tell_the_app()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._refused:
            before = self.cycle
            self._received += len(data)
            super().data_received(data)
            if self.cycle is not before:  # another request, which the app refuses by its head if that tells its length
                announced = any(name == b"content-length" for name, _ in self.cycle.scope["headers"])
                self._received = 0 if announced else len(data)
            self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._wait_for_a_reader()
        elif not self.cycle.response_complete:  # the next request, or its head, has come already
            self._watch()

    def pause_writing(self) -> None:
        """More answers are unread than the kernel holds."""
        super().pause_writing()
        self._wait_for_a_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None and not self.transport.is_closing():
            self._unread.cancel()
            self._unread = None

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():  # closing waits until it is read
            self._cut()
        else:
            super().timeout_keep_alive_handler()

    def send_400_response(self, msg: str) -> None:
        """Called where a parser's error is handled, which says if it is one of size (h11's)."""
        if getattr(sys.exception(), "error_status_hint", 400) == 431:
            self._refuse_size()
        else:
            self._refuse(400, msg)

    def _watch(self) -> None:
        """The deadline runs while a request is on its way here."""
        cycle = self.cycle
        if cycle is not None and not cycle.more_body and not cycle.response_complete:
            self._received = 0
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None
        elif self._received > self.limits.wire and not (cycle is not None and cycle.response_complete):
            self._cut()  # what still comes of a request that is answered is read away, so that the answer is seen
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.limits.seconds, self._too_late)

    def _too_late(self) -> None:
        cycle = self.cycle
        if self not in self.connections:  # it has become a WebSocket
            return
        if self.flow.read_paused:  # it is we who let the client wait
            self._deadline = self.loop.call_later(self.limits.seconds, self._too_late)
        elif self._received and (cycle is None or (cycle.response_complete and not cycle.more_body)):
            self._refuse(408, f"The request was not complete after {self.limits.seconds:g} s.")
        else:  # nothing came at all, a body does not, or the rest of one that is answered
            self._cut()

    def _wait_for_a_reader(self) -> None:
        if self._unread is None:
            self._unread = self.loop.call_later(self.limits.seconds, self._cut)

    def _cut(self) -> None:
        self._tell_the_app()
        if self.transport.get_write_buffer_size():  # nobody reads: the kernel need not go on trying, either
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.transport.abort()

    def _tell_the_app(self) -> None:
        """That the client has gone, or as good as: it gives up its place, and what it writes goes nowhere."""
        for cycle in (self._running, self.cycle):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()

    def _refuse_size(self) -> None:
        self._refuse(431, too_large(self.limits.head))

    def _refuse(self, status: int, sentence: str) -> None:
        """Close the connection, and say why if that cannot be taken for the answer to another request."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            heard = cycle is None or not cycle.more_body
        else:
            heard = cycle.more_body and not cycle.response_started and self._running in (None, cycle)
        if not heard or self.transport.get_write_buffer_size():
            self._cut()
            return
        self._tell_the_app()
        self._refused = True
        self.transport.write(on_the_wire(problem(status, sentence, CLOSE)))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        # What the client is still sending is read away: closed at once, the kernel would take the answer back.
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self.loop.call_later(LINGER_SECONDS, self._cut)


class GuardedHttpTools(Guarded):
    """httptools takes heads, chunk extensions and trailers of any size; pipelined requests wait in a queue."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._stalled = 0  # bytes since the latest end of a head, or piece of a body

    def data_received(self, data: bytes) -> None:
        self._stalled += len(data)
        super().data_received(data)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._stalled = 0
        if not self.pipeline:
            self._running = self.cycle

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self._stalled = 0

    def on_response_complete(self) -> None:
        if self.pipeline:
            self._running = self.pipeline[-1][0]
        super().on_response_complete()

    def _watch(self) -> None:
        if self._stalled > self.limits.head and not self._refused:
            self._refuse_size()
        elif len(self.pipeline) > PIPELINED:
            self._cut()
        else:
            super()._watch()


MIXINS = {  # by the module of uvicorn's class, so that none is imported that is not used
    "uvicorn.protocols.http.httptools_impl": GuardedHttpTools,
    "uvicorn.protocols.http.h11_impl": Guarded,  # it bounds itself, by `h11_max_incomplete_event_size`
}


def too_large(limit: int) -> str:
    return f"The header fields are over the limit of {limit} bytes."
