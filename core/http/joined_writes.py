"""A transport that sends the head of an answer and its body together."""

from __future__ import annotations

import asyncio
from typing import Any, cast

HELD_BYTES = 65536  # more is written at once, so that the transport sees it and pauses the writer


class JoinedWrites:
    """Sends what was written since the event loop last ran in one piece.

    uvicorn writes the head of an answer before its body. If the process is killed in between, the client has a head
    without a body, and a balancer that has passed on the head cannot ask another node. Everything but writing is left
    to the transport.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []
        self._held_bytes = 0

    @classmethod
    def around(cls, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> asyncio.Transport:
        return cast("asyncio.Transport", cls(transport, loop))

    def write(self, data: bytes) -> None:
        if not self._held:
            self._loop.call_soon(self._send)
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes >= HELD_BYTES:
            self._send()

    def write_eof(self) -> None:
        self._send()
        self._transport.write_eof()

    def close(self) -> None:
        self._send()
        self._transport.close()

    def get_write_buffer_size(self) -> int:
        return self._held_bytes + self._transport.get_write_buffer_size()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._send()
        self._transport.set_protocol(protocol)

    def _send(self) -> None:
        if self._held:
            held, self._held, self._held_bytes = self._held, [], 0
            self._transport.write(b"".join(held))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
