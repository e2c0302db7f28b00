"""The outermost middleware of ours: what every request gets, and what none may be."""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Callable
from functools import lru_cache
from time import perf_counter
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..config.settings import Settings
from ..errors import Overloaded
from ..serving.logs import access, request_id
from .paths import route_path
from .problems import FAILED, problem

log = logging.getLogger("residency")
NO_ROOM = "The bodies of the requests that wait take all the room that there is; come again."
COMPRESSED = "Send the body as it is, without Content-Encoding: this server takes no compressed ones."
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
EVENT = "residency.event"  # in a request's scope: what its line in the log says of it, besides


class Edge:
    """ASGI middleware: a request id, the hosts that we are, the limits of bodies, and a line for every failure.

    Bodies are counted as they are read, one by one and all together, so that none is refused only when it
    is in memory. Starlette has middlewares for hosts and bodies, but they answer in plain text where we
    promise a problem. It stands outside FastAPI, because an overloaded server must say no before it has
    spent itself on the way there.
    """

    def __init__(self, app: ASGIApp, settings: Settings, admit: Callable[[str], None]) -> None:
        """`admit` raises Overloaded where, going by the path alone, there is no place for one more request."""
        self._app = app
        self._max_body = settings.max_body
        self._max_bodies = settings.max_queue_bytes
        self._allowed_hosts = {host.lower() for host in settings.allowed_hosts}
        self._admit = admit
        self._held = 0  # bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = perf_counter()
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        identity = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        request_id.set(identity)
        scope[EVENT] = {}
        is_head = scope["method"] == "HEAD"
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", identity.encode())]
            elif is_head:
                message["body"] = b""
            await send(message)

        try:
            # A HEAD is answered as the GET would be, its length included; the server goes by its own scope.
            await self._serve({**scope, "method": "GET"} if is_head else scope, headers, receive, answer)
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            if not status:
                await problem(500, FAILED)(scope, receive, answer)
        finally:
            if not access.disabled:
                access.info("request", extra=_line(scope, status, perf_counter() - began))

    async def _serve(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        if self._allowed_hosts and _host(headers) not in self._allowed_hosts:
            await problem(421, "This server does not answer for the host that the request names.")(scope, receive, send)
            return
        if b"content-encoding" in headers and _is_compressed(scope):
            # https://www.rfc-editor.org/rfc/rfc9110#section-15.5.16
            await problem(415, COMPRESSED, {"Accept-Encoding": "identity"})(scope, receive, send)
            return
        try:
            if scope["method"] == "POST":
                self._admit(route_path(scope))
        except Overloaded as overloaded:
            await _refused(str(overloaded), overloaded.seconds)(scope, receive, send)
            return
        sentence = f"The body is over the limit of {self._max_body} bytes."
        if int(headers.get(b"content-length", b"0")) > self._max_body:
            await problem(413, sentence)(scope, receive, send)
            return
        received = 0

        async def counting() -> Message:
            nonlocal received
            message = await receive()
            size = len(message.get("body", b""))
            received += size
            self._held += size
            if received > self._max_body:
                raise HTTPException(413, sentence)
            if self._held > self._max_bodies and size:
                raise HTTPException(503, NO_ROOM, {"Retry-After": "1"})
            return message

        try:
            await self._app(scope, counting, send)
        finally:
            self._held -= received


@lru_cache(16)
def _refused(sentence: str, seconds: int) -> Response:
    return problem(503, sentence, {"Retry-After": str(seconds)})


def _host(headers: dict[bytes, bytes]) -> str:
    """Without the port; an IPv6 address keeps its brackets."""
    return re.sub(r":\d*$", "", headers.get(b"host", b"").decode("latin-1")).lower()


def _is_compressed(scope: Scope) -> bool:
    """Whether there is a body in any coding; the header may be repeated, and list several."""
    codings = b",".join(value for name, value in scope["headers"] if name == b"content-encoding").lower().split(b",")
    return scope["method"] != "GET" and any(coding.strip() not in (b"", b"identity") for coding in codings)


def _line(scope: Scope, status: int, seconds: float) -> dict[str, Any]:
    client = scope.get("client")
    about: dict[str, Any] = {
        "method": scope["method"],
        "path": scope["path"],
        "status": status,
        "ms": round(seconds * 1e3, 3),
    }
    about |= {"client": client[0] if client else None}
    return about | dict(scope[EVENT])
