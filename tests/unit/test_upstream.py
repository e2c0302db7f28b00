"""Requests to engines over connections that are kept, some of which the engine has closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import ClientError

from core.http.upstream import EngineRequest, NoAnswerError, NotSentError, Upstream, parts_of
from tests.helpers.support import SECONDS

pytestmark = pytest.mark.anyio
Answer = Callable[[bytes, int], bytes | None]
HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Odd: \xe9\r\n\r\nhello"


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


class Server:
    """A server that answers the n-th request of all, or closes the connection if there is no answer."""

    def __init__(self, answer: Answer, is_last: int = -1) -> None:
        """After answer `is_last`, the connection is closed."""
        self.is_last = is_last
        self.requests: list[bytes] = []
        self.connections = 0
        self._answer = answer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while (answer := await self._next(reader)) is not None:
                writer.write(answer)
                await writer.drain()
                if len(self.requests) == self.is_last:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _next(self, reader: asyncio.StreamReader) -> bytes | None:
        head = await reader.readuntil(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
        body = await reader.readexactly(int(fields.get(b"content-length", b"0")))
        self.requests.append(head + body)
        return self._answer(head, len(self.requests))


@asynccontextmanager
async def serving(
    answer: Answer, is_last: int = -1
) -> AsyncIterator[tuple[Server, Callable[..., Awaitable[bytes]], Upstream, str]]:
    """The server, a function that asks it, the connections, and the server's address."""
    server, upstream = Server(answer, is_last), Upstream()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"

    async def ask(method: str = "POST", body: bytes = b"{}", *, runs: bool = True, target: str = "/x") -> bytes:
        asked = EngineRequest(method, target, [("x-one", "1"), ("x-one", "2")], body)
        response = await upstream.ask(url, asked, lambda: runs)
        try:
            return await response.read()
        finally:
            response.close()

    try:
        yield server, ask, upstream, url
    finally:
        await upstream.close()
        listening.close()


async def test_nothing_is_added_but_what_http_needs() -> None:
    async with serving(lambda head, number: HELLO) as (server, ask, _, _):
        assert await ask(target="/a%2Fb/../c?d=%20&e") == b"hello"
        await ask("GET", b"")
    first, *lines = server.requests[0].split(b"\r\n")
    assert first == b"POST /a%2Fb/../c?d=%20&e HTTP/1.1"
    added = {line for line in lines if line.startswith((b"Host: ", b"Content-Length: "))}
    assert (len(added), [line for line in lines if line not in added]) == (2, [b"x-one: 1", b"x-one: 2", b"", b"{}"])
    assert b"Content-" not in server.requests[1]
    assert server.connections == 1


async def test_a_kept_connection_that_was_closed_is_replaced_once() -> None:
    async with serving(lambda head, number: None if number == 2 else HELLO) as (server, ask, _, _):
        assert await ask() == await ask() == b"hello"
    assert (len(server.requests), server.connections) == (3, 2)


async def test_a_new_connection_that_is_closed_is_an_error() -> None:
    async with serving(lambda head, number: None) as (server, ask, _, _):
        with pytest.raises(NoAnswerError):
            await ask()
    assert len(server.requests) == 1


async def test_twice_is_enough() -> None:
    async with serving(lambda head, number: HELLO if number == 1 else None) as (server, ask, _, _):
        await ask()
        with pytest.raises(NoAnswerError):
            await ask()
    assert len(server.requests) == 3


async def test_an_engine_that_has_ended_is_not_asked_again() -> None:
    async with serving(lambda head, number: HELLO if number == 1 else None) as (server, ask, _, _):
        await ask()
        with pytest.raises(NoAnswerError):
            await ask(runs=False)
    assert len(server.requests) == 2


@pytest.mark.parametrize("begun", [b"SMTP ready\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Le"])
async def test_part_of_an_answer_is_no_reason_to_ask_again(begun: bytes) -> None:
    async with serving(lambda head, number: {1: HELLO, 2: begun}.get(number), is_last=2) as (server, ask, _, _):
        await ask()
        with pytest.raises(NoAnswerError):
            await ask()
    assert len(server.requests) == 2


async def test_what_comes_together_with_the_end_of_the_connection() -> None:
    cut = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n"
    async with serving(lambda head, number: cut, is_last=1) as (_, _, upstream, url):
        answer = await upstream.ask(url, EngineRequest("GET", "/", [], b""), lambda: True)
        async with asyncio.timeout(SECONDS):
            while answer.content.exception() is None:  # so that nothing was read before the end
                await asyncio.sleep(0)
        heard = bytearray()

        async def hear() -> None:
            async for part in parts_of(answer):
                heard.extend(part)

        with pytest.raises(ClientError):
            await hear()
        answer.close()
    assert heard == b"abcdef"


async def test_no_listener() -> None:
    upstream = Upstream()
    with pytest.raises(NotSentError):
        await upstream.ask("http://127.0.0.1:1", EngineRequest("POST", "/", [], b"{}"), lambda: True)
    await upstream.close()


async def test_cookies_redirects_and_compression_pass_unseen() -> None:
    moved = b"HTTP/1.1 302 Found\r\nLocation: /y\r\nSet-Cookie: a=b\r\nContent-Encoding: gzip\r\n"
    moved += b"Content-Length: 3\r\n\r\nabc"
    async with serving(lambda head, number: moved) as (server, ask, _, _):
        assert await ask() == await ask() == b"abc"
    assert b"ookie" not in server.requests[1]
    assert len(server.requests) == 2


async def test_a_large_body_and_many_at_a_time() -> None:
    async with serving(lambda head, number: HELLO) as (server, ask, _, _):
        await ask(body=bytes(3 << 20))
        await asyncio.gather(*(ask() for _ in range(150)))
    assert len(server.requests[0]) > 3 << 20
    assert len(server.requests) == 151
