"""A transport that sends the head of an answer and its body together, over a real socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from core.http.joined_writes import HELD_BYTES, JoinedWrites


class CountingSocket(socket.socket):
    """A socket that records what each call of `send` is given."""

    sent: list[bytes]

    def send(self, data: bytes, *rest: int) -> int:  # type: ignore[override]
        self.sent.append(bytes(data))
        return super().send(data, *rest)


def sent_by(write: Callable[[asyncio.Transport], None]) -> list[bytes]:
    """What the socket was given in each call while `write` used the transport, and once the event loop had run."""

    async def run() -> list[bytes]:
        ours, theirs = socket.socketpair()
        counting = CountingSocket(fileno=ours.detach())
        counting.sent = []
        counting.setblocking(False)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=counting)
        with theirs:
            write(JoinedWrites.around(transport, loop))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            transport.close()
        return counting.sent

    return asyncio.run(run())


def test_head_and_body_are_sent_together() -> None:
    def write(transport: asyncio.Transport) -> None:
        transport.write(b"head")
        transport.write(b"body")
        assert transport.get_write_buffer_size() == len(b"headbody")

    assert sent_by(write) == [b"headbody"]


def test_a_long_body_is_sent_at_once() -> None:
    def write(transport: asyncio.Transport) -> None:
        transport.write(b"head")
        transport.write(bytes(HELD_BYTES))
        assert transport.get_write_buffer_size() < HELD_BYTES

    [sent] = sent_by(write)
    assert sent.startswith(b"head")


def test_nothing_is_lost_when_the_transport_is_closed() -> None:
    def write(transport: asyncio.Transport) -> None:
        transport.write(b"head")
        transport.close()

    assert sent_by(write) == [b"head"]
