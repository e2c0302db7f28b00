"""The connections to engines. Imported when the first request is forwarded: aiohttp is no small import."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any, NamedTuple

from aiohttp import (
    ClientConnectorError,
    ClientError,
    ClientOSError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    ConnectionTimeoutError,
    DummyCookieJar,
    ServerDisconnectedError,
    TCPConnector,
    TraceConfig,
)
from multidict import CIMultiDict
from yarl import URL

CONNECT_SECONDS = 10.0
LARGE_BODY = 1 << 20  # aiohttp warns of larger ones that it gets as bytes
MAX_HEAD_LINE = 1 << 16
OWN_HEADERS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")  # that aiohttp would add


class EngineRequest(NamedTuple):
    """A request as an engine gets it."""

    method: str
    target: str
    """The path, and the query if there is one, as they were received."""
    headers: Iterable[tuple[str, str]]
    body: bytes


class NotSentError(Exception):
    """The engine has seen nothing of the request, since there was no connection to it."""


class NoAnswerError(Exception):
    """The engine has closed the connection, or sent what is not HTTP, before the head of an answer was complete."""


class DroppedError(NoAnswerError):
    """The connection was closed before the first byte of an answer."""


class Upstream:
    """Sends requests to engines, over connections that are kept. It belongs to one event loop.

    Cookies, redirects, proxies and compression are not its business: all bytes go from the one side to the other.
    """

    def __init__(self) -> None:
        # An engine may close a kept connection just when it is used, so a request can need one that is new for sure.
        self._kept, self._new = _session(force_close=False), _session(force_close=True)

    async def ask(self, url: str, asked: EngineRequest, is_running: Callable[[], bool]) -> ClientResponse:
        """The head of the answer of the engine at `url`; the caller closes it.

        A request that is cut off before the first byte of an answer, on a connection that was used before, is sent once
        more if the engine `is_running`. Raises NotSentError or NoAnswerError.
        """
        is_used: dict[str, bool] = {}
        try:
            return await _send(self._kept, url, asked, is_used)
        except DroppedError:
            if not is_used or not is_running():
                raise
        try:
            return await _send(self._new, url, asked, is_used)
        except NotSentError as error:
            raise NoAnswerError(str(error)) from error  # the engine may have seen the first one

    async def close(self) -> None:
        """Close all connections."""
        await self._kept.close()
        await self._new.close()


async def parts_of(answer: ClientResponse) -> AsyncIterator[bytes]:
    """The body of an answer, in parts as they come. Raises ClientError if it does not come to its end.

    aiohttp forgets what came together with the end of a connection; that is given, too.
    """
    try:
        async for part in answer.content.iter_any():
            yield part
    except ClientError:
        read_rest = getattr(answer.content, "_read_nowait", lambda _: b"")
        if rest := read_rest(-1):
            yield rest
        raise


async def _send(session: ClientSession, url: str, asked: EngineRequest, is_used: Mapping[str, bool]) -> ClientResponse:
    large = len(asked.body) > LARGE_BODY
    try:
        return await session.request(
            asked.method,
            URL(url.rstrip("/") + asked.target, encoded=True),
            data=io.BytesIO(asked.body) if large else asked.body or None,
            headers=CIMultiDict(asked.headers),
            skip_auto_headers=OWN_HEADERS,
            allow_redirects=False,
            trace_request_ctx=is_used,
        )
    except (ClientConnectorError, ConnectionTimeoutError) as error:
        raise NotSentError(str(error)) from error
    except (ClientOSError, ServerDisconnectedError) as error:
        has_begun = isinstance(error, ServerDisconnectedError) and not isinstance(error.message, str)
        raise (NoAnswerError if has_begun else DroppedError)(str(error)) from error
    except ClientError as error:
        raise NoAnswerError(str(error)) from error


def _session(*, force_close: bool) -> ClientSession:
    return ClientSession(
        connector=TCPConnector(limit=0, force_close=force_close),
        timeout=ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        cookie_jar=DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        max_line_size=MAX_HEAD_LINE,
        max_field_size=MAX_HEAD_LINE,
        trace_configs=[_trace_use()],
    )


def _trace_use() -> TraceConfig:
    """Notes in the mapping that a request brings along that its connection was used before."""

    async def note(session: ClientSession, context: Any, params: Any) -> None:
        context.trace_request_ctx["used"] = True

    trace = TraceConfig()
    trace.on_connection_reuseconn.append(note)
    return trace
