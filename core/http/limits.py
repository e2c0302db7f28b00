"""Middleware: a cluster's secret, allowed hosts, and early refusals of requests too large or without a queue slot."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from functools import lru_cache

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..config.settings import Settings
from ..errors import Overloaded
from .problems import RETRY, dialect_of, problem, route_path
from .schemas import Problem

TOO_MANY_BYTES = "The bodies of all waiting requests are over the limit of this server; try again in 1 s."
COMPRESSED = "Send the body without Content-Encoding: this server accepts no compressed bodies."
WRONG_HOST = "This server does not answer for the host that the request names."


BALANCER_ONLY = "This node answers only its balancer, which sends the secret of the cluster."
CLUSTER_HEADER = "X-Residency-Secret"
OPEN_PATH = "/healthz"  # for what starts and restarts nodes


class RequestLimits:
    """ASGI middleware: a cluster's secret, allowed hosts, no compressed bodies, a limit for each body and for them all.

    Bodies are counted while they are read, so that one that is too large is refused before it is in memory. A request
    for a strategy without a free queue slot is refused before its body is read. This stands outside FastAPI, so that a
    refusal costs an overloaded server little. Starlette's middlewares for hosts and bodies answer in plain text.
    """

    def __init__(
        self, app: ASGIApp, settings: Settings, routes: Mapping[str, str], check_slots: Callable[[str], None]
    ) -> None:
        """`routes` gives the strategy of each path. `check_slots` raises Overloaded if a strategy has no free slot."""
        self._app = app
        self._max_body = settings.max_body
        self._max_bodies = settings.max_queue_bytes
        secret = settings.cluster.secret if settings.cluster else None
        self._secret = secret.get_secret_value().encode() if secret else None
        self._allowed_hosts = {host.lower() for host in settings.allowed_hosts}
        self._routes = routes
        self._check_slots = check_slots
        self._received = 0  # bytes of all bodies of requests that are being answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        received = 0

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            size = len(message.get("body", b""))
            received += size
            self._received += size
            if received > self._max_body:
                raise HTTPException(413, self._too_large())
            if self._received > self._max_bodies and size:
                raise HTTPException(503, TOO_MANY_BYTES, RETRY)
            return message

        try:
            await self._app(scope, receive_counted, send)
        finally:
            self._received -= received

    def _refusal(self, scope: Scope, headers: Mapping[bytes, bytes]) -> Response | None:
        """The answer to a request that is refused by its head, or None."""
        dialect = dialect_of(scope)
        if self._secret is not None and route_path(scope) != OPEN_PATH:
            given = headers.get(CLUSTER_HEADER.lower().encode(), b"")
            if not secrets.compare_digest(given, self._secret):
                return problem(401, BALANCER_ONLY, {"WWW-Authenticate": CLUSTER_HEADER}, dialect)
        if self._allowed_hosts and _host(headers) not in self._allowed_hosts:
            return problem(421, WRONG_HOST, dialect=dialect)
        if b"content-encoding" in headers and _is_compressed(scope):
            # https://www.rfc-editor.org/rfc/rfc9110#section-15.5.16
            return problem(415, COMPRESSED, {"Accept-Encoding": "identity"}, dialect)
        strategy = self._routes.get(route_path(scope)) if scope["method"] == "POST" else None
        if strategy is not None:
            try:
                self._check_slots(strategy)
            except Overloaded as overloaded:
                return _overloaded(str(overloaded), overloaded.seconds, dialect)
        if int(headers.get(b"content-length", b"0")) > self._max_body:
            return problem(413, self._too_large(), dialect=dialect)
        return None

    def _too_large(self) -> str:
        return f"The body is over the limit of {self._max_body} bytes."


@lru_cache(16)
def _overloaded(sentence: str, seconds: int, dialect: type[Problem]) -> Response:
    return problem(503, sentence, {"Retry-After": str(seconds)}, dialect)


def _host(headers: Mapping[bytes, bytes]) -> str:
    """The host that the request names, without the port. An IPv6 address keeps its brackets."""
    return re.sub(r":\d*$", "", headers.get(b"host", b"").decode("latin-1")).lower()


def _is_compressed(scope: Scope) -> bool:
    """Whether the body has a content coding. The header may be repeated, and list several."""
    codings = b",".join(value for name, value in scope["headers"] if name == b"content-encoding").lower().split(b",")
    return scope["method"] != "GET" and any(coding.strip() not in (b"", b"identity") for coding in codings)
