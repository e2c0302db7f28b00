"""A server that answers every request alike, as a served app would, and fails at one of them as it is told.

python tests/helpers/trivial_server.py --port 8002 --delay 0.025
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from itertools import count
from typing import cast

import httptools
import uvloop

BODY = b'{"cold":false,"predictions":[{"label":"POSITIVE","score":0.75}]}'
ANSWER = b"HTTP/1.1 200 OK\r\nServer-Timing: inference;dur=0.5\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


class Trivial(asyncio.Protocol):
    """One connection. A stall holds up all of them, as a process does that hangs."""

    def __init__(self, flags: argparse.Namespace, numbers: count[int]) -> None:
        self._flags = flags
        self._numbers = numbers

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        flags, number = self._flags, next(self._numbers)
        if number == flags.die_at:
            os._exit(7)
        if number == flags.cut_at:
            self._transport.abort()
        elif number == flags.hang_at:
            pass
        else:
            if number == flags.stall_at:
                time.sleep(flags.stall)
            if flags.delay:
                asyncio.get_running_loop().call_later(flags.delay, self._transport.write, ANSWER)
            else:
                self._transport.write(ANSWER)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--stall", type=float, default=0.0, help="seconds in which nothing happens")
    for flag in ("--stall-at", "--cut-at", "--hang-at", "--die-at"):
        parser.add_argument(flag, type=int, help="the number of a request, from 1")
    flags, numbers = parser.parse_args(), count(1)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Trivial(flags, numbers), "127.0.0.1", flags.port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
