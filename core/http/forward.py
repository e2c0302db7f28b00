"""Requests that an engine answers: forwarded byte for byte, while the engine is leased."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from fastapi import Request, Response
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from ..errors import ForwardFailed, ModelCrashed
from ..serving.forwarding import Forwarding
from ..serving.service import Service
from .access import ASKED_METHOD, LOG_FIELDS
from .limits import CLUSTER_HEADER
from .named import read_said
from .predict import log_fields, run_while_connected, server_timing, timeout_of
from .problems import CLIENT_GONE, FAILED, problem, status_of

if TYPE_CHECKING:
    from aiohttp import ClientResponse

    from .upstream import EngineRequest, Upstream

log = logging.getLogger("residency")

COMMENT_AFTER = 1.0  # seconds until a stream that waits for its engine begins with a comment
COMMENT_EVERY = 5.0  # clients and proxies that hear nothing give up, the hastiest after 10 s
COMMENT = b": loading\n\n"
EVENT_STREAM = b"text/event-stream"
# https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1
HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding"
    b" upgrade".split()
)
# The client library writes Host and Content-Length anew; this server has already answered Expect.
NOT_FORWARDED = HOP_BY_HOP | {b"host", b"content-length", b"expect", CLUSTER_HEADER.lower().encode()}
NOT_PASSED_ON = HOP_BY_HOP | {b"date", b"server", b"x-request-id"}  # this server has its own
COLD_HEADER = b"x-residency-cold"
NO_UPGRADE = "Engines are asked over HTTP only: a WebSocket, or any other upgrade, cannot be forwarded."


async def forward(request: Request, service: Service, strategy: str, model_id: str, path: str) -> Response:
    """The answer of the engine `model_id` to the request, for its `path`; the engine is leased while it is sent.

    Raises HTTPException. Until the response has begun, it raises what `Service.forwarding` raises, or ForwardFailed.
    """
    if request.headers.get("upgrade", "").lower() == "websocket":
        raise HTTPException(501, NO_UPGRADE)
    said = await read_said(request)
    from .upstream import EngineRequest

    asked = EngineRequest(
        method=request.scope.get(ASKED_METHOD, request.method),
        target=_target(request.scope, path),
        headers=list(_headers_to_forward(request.scope["headers"], service.token)),
        body=await request.body(),
    )
    # Ollama's own streams are lines of JSON, in which a comment would be an error.
    is_commented = said.stream and not path.startswith("/api/")
    return _Forwarded(service, strategy, model_id, asked, timeout_of(request), is_commented=is_commented)


def prepare_forwarding() -> None:
    """Import what forwarding needs, so that the first request need not."""
    from . import upstream  # noqa: F401


async def close_forwarding(app: Any) -> None:
    """Close the connections to engines."""
    if (upstream := getattr(app.state, "upstream", None)) is not None:
        await upstream.close()


async def refuse_websocket(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a WebSocket's handshake with an error, where the server can send one."""
    if "websocket.http.response" in scope.get("extensions", {}):
        response = problem(501, NO_UPGRADE)
        head = {"type": "websocket.http.response.start", "status": 501, "headers": response.raw_headers}
        await send(head)
        await send({"type": "websocket.http.response.body", "body": response.body})
    else:
        await send({"type": "websocket.close", "reason": NO_UPGRADE})


def _upstream_of(scope: Scope) -> Upstream:
    """The connections of the app that the request is for."""
    from .upstream import Upstream

    state = scope["app"].state
    if getattr(state, "upstream", None) is None:
        state.upstream = Upstream()
    upstream: Upstream = state.upstream
    return upstream


def _headers_to_forward(headers: Iterable[tuple[bytes, bytes]], token: bytes) -> Iterator[tuple[str, str]]:
    """The headers that are for the engine. A header with this server's token is not."""
    listed = _named_by_connection(headers)
    for name, value in headers:
        if name not in NOT_FORWARDED and name not in listed and not (token and token in value):
            try:
                text = value.decode()
            except UnicodeDecodeError:
                text = value.decode("latin-1")
            yield name.decode("latin-1"), text


def _headers_to_pass_on(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    """The headers of an engine's answer that are for the client."""
    lower = [(name.lower(), value) for name, value in headers]
    listed = _named_by_connection(lower)
    return ((name, value) for name, value in lower if name not in NOT_PASSED_ON and name not in listed)


def _named_by_connection(headers: Iterable[tuple[bytes, bytes]]) -> set[bytes]:
    """The headers that are for this connection only, by the header Connection."""
    return {word.strip().lower() for name, value in headers if name == b"connection" for word in value.split(b",")}


def _target(scope: Scope, path: str) -> str:
    """The query, after the `path`, which is decoded and ends the request's path, as it was sent."""
    raw: str = (scope.get("raw_path") or quote(scope["path"]).encode()).partition(b"?")[0].decode("latin-1")
    if not raw.endswith(path):
        begins = (i for i, character in enumerate(raw) if character == "/" and unquote(raw[i:]) == path)
        begin = next(begins, None)
        raw = quote(path) if begin is None else raw[begin:]
    else:
        raw = path
    query = scope["query_string"].decode("latin-1")
    return f"{raw}?{query}" if query else raw


class _CutOffError(Exception):
    """The engine did not complete an answer that has begun, so the client must not take it for complete."""


class _Sender:
    """Sends parts of a response, and knows whether it has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def head(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        await self._send({"type": "http.response.start", "status": status, "headers": list(headers)})
        self.begun = True

    async def part(self, content: bytes, *, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": content, "more_body": more})


class _Forwarded(Response):
    """Leases the engine, asks it and passes its answer on. The lease ends with the last byte, or with the client."""

    def __init__(
        self,
        service: Service,
        strategy: str,
        model_id: str,
        asked: EngineRequest,
        seconds: float | None,
        *,
        is_commented: bool,
    ) -> None:
        super().__init__()
        self._service = service
        self._strategy = strategy
        self._model_id = model_id
        self._asked = asked
        self._seconds = seconds
        self._is_commented = is_commented
        self._comments: asyncio.Task[None] | None = None
        self._is_passing_on = False  # what the engine says, after which nothing of ours may follow

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sender = _Sender(send)
        scope[LOG_FIELDS] |= {"strategy": self._strategy, "model": self._model_id}
        try:
            is_sent = await run_while_connected(receive, self._send_answer(scope, sender))
        except _CutOffError as error:  # without its end, the server closes the connection
            log.warning("The answer of model '%s' was cut off: %s", self._model_id, error)
            return
        if not is_sent and not sender.begun:
            await Response(status_code=CLIENT_GONE)(scope, receive, send)

    async def _send_answer(self, scope: Scope, sender: _Sender) -> bool:
        if self._is_commented:
            self._comments = asyncio.create_task(self._comment(sender))
        try:
            async with self._service.forwarding(self._strategy, self._model_id, self._seconds) as forwarding:
                if not sender.begun:
                    await self._stop_comments()
                upstream = await self._ask(_upstream_of(scope), forwarding)
                try:
                    await self._stop_comments()
                    forwarding.mark_answered()
                    await self._pass_on(upstream, forwarding, sender)
                finally:
                    upstream.close()
                scope[LOG_FIELDS] |= log_fields(self._strategy, self._model_id, forwarding.answer())
        except _CutOffError:
            raise
        except Exception as error:
            await self._stop_comments()
            if not sender.begun:
                raise
            if self._is_passing_on:
                raise _CutOffError(f"{error}.") from error
            await self._send_error(error, sender)
        finally:
            if self._comments is not None:
                self._comments.cancel()
        return True

    async def _comment(self, sender: _Sender) -> None:
        """Send the head of a stream, and comments, while the request waits, so that the client does."""
        await asyncio.sleep(COMMENT_AFTER)
        is_cold = not self._service.is_in_memory(self._strategy, self._model_id)
        cold = (COLD_HEADER, b"true" if is_cold else b"false")
        await sender.head(200, [(b"content-type", EVENT_STREAM), (b"cache-control", b"no-cache"), cold])
        while True:
            await sender.part(COMMENT)
            await asyncio.sleep(COMMENT_EVERY)

    async def _stop_comments(self) -> None:
        """Send no more comments. One that is being sent is not waited for: it is whole, or not sent at all."""
        if self._comments is not None:
            self._comments.cancel()
            await asyncio.wait({self._comments})

    async def _ask(self, upstream: Upstream, forwarding: Forwarding) -> ClientResponse:
        """The head of the engine's answer. Raises ForwardFailed or ModelCrashed."""
        from .upstream import NoAnswerError, NotSentError

        engine = f"The engine of model '{self._model_id}'"
        is_renewed = False
        while True:
            try:
                return await upstream.ask(forwarding.engine.url, self._asked, lambda: not forwarding.has_ended)
            except NotSentError as error:
                if not await forwarding.has_crashed():
                    raise ForwardFailed(f"{engine} accepts no connection; its output is in the log.") from error
                if is_renewed:
                    raise ModelCrashed(f"{engine} has ended; its output is in the log.") from error
            except NoAnswerError as error:
                if await forwarding.has_crashed():
                    raise ModelCrashed(f"{engine} has ended during the request; try again.") from error
                raise ForwardFailed(f"{engine} has closed the connection without an answer.") from error
            is_renewed = True
            await forwarding.renew()

    async def _pass_on(self, upstream: ClientResponse, forwarding: Forwarding, sender: _Sender) -> None:
        """Send the engine's answer as it comes. Raises _CutOffError if it does not come to its end."""
        from aiohttp import ClientError

        from .upstream import parts_of

        is_own_head = sender.begun
        try:
            if is_own_head:  # the head could not say what was not over yet
                await sender.part(f": Server-Timing: {server_timing(forwarding.answer())}\n\n".encode())
            if is_own_head and (upstream.status != 200 or upstream.content_type.encode() != EVENT_STREAM):
                await sender.part(_as_event(upstream.status, await upstream.read()))
            else:
                if not is_own_head:
                    await sender.head(upstream.status, self._head_to_send(upstream, forwarding))
                self._is_passing_on = True
                async for content in parts_of(upstream):
                    await sender.part(content)
        except (ClientError, OSError) as error:
            has_crashed = await forwarding.has_crashed()
            raise _CutOffError("its engine has ended." if has_crashed else f"{error}.") from error
        await sender.part(b"", more=False)

    def _head_to_send(self, upstream: ClientResponse, forwarding: Forwarding) -> Iterator[tuple[bytes, bytes]]:
        yield from _headers_to_pass_on(upstream.raw_headers)
        yield b"server-timing", server_timing(forwarding.answer()).encode()
        yield COLD_HEADER, b"true" if forwarding.cold else b"false"

    async def _send_error(self, error: Exception, sender: _Sender) -> None:
        """Send an error as the last event of a stream that has begun."""
        status = status_of(error)
        if status is None:
            log.error("Forwarding to model '%s' failed", self._model_id, exc_info=error)
        sentence = FAILED if status is None else str(error)
        event = _error_event(status or 500, sentence, type(error).__name__)
        if self._asked.target.partition("?")[0].endswith("/messages"):  # Anthropic's clients go by the event's name
            event = b"event: error\n" + event
        await sender.part(event, more=False)


def _as_event(status: int, content: bytes) -> bytes:
    """An answer that is no stream, as an event of one."""
    try:
        value = json.loads(content)
    except ValueError:
        return _error_event(status, content.decode(errors="replace"), "engine_error")
    if status >= 400 and not (isinstance(value, dict) and "error" in value):
        return _error_event(status, json.dumps(value), "engine_error")
    return _event(value)


def _error_event(status: int, sentence: str, kind: str) -> bytes:
    return _event({"type": "error", "error": {"message": sentence, "type": kind, "code": status}})


def _event(value: Any) -> bytes:
    return f"data: {json.dumps(value)}\n\n".encode()
