"""Clients that speak HTTP byte by byte, as no library would."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from core.bench.server import ServerProcess
from tests.helpers.support import SECONDS, gated

MAX_QUEUE = 8  # in the settings of the servers that are asked here
POST = b"POST /predict-on-demand HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
BODY = b'{"text": "good"}'
WHOLE = POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY


def connected(server: ServerProcess) -> socket.socket:
    address = urlsplit(server.url)
    return socket.create_connection((address.hostname, address.port), SECONDS)


def sent(server: ServerProcess, data: bytes) -> socket.socket:
    """A connection, with as much sent as the server took before it cut it."""
    connection = connected(server)
    with suppress(OSError):
        connection.sendall(data)
    return connection


def rest(connection: socket.socket) -> bytes:
    """What the server says until it closes; TimeoutError if it never does."""
    heard = b""
    with connection:
        try:
            while piece := connection.recv(1 << 16):
                heard += piece
        except ConnectionError:
            pass
    return heard


def dripped(server: ServerProcess, start: bytes, drops: Iterable[bytes], gap: float) -> bytes:
    """Send drop after drop until the server answers or closes; all that it says."""
    connection = sent(server, start)
    for drop in drops:
        if select.select([connection], [], [], gap)[0]:
            break
        try:
            connection.sendall(drop)
        except OSError:
            break
    return rest(connection)


def answer(connection: socket.socket) -> bytes:
    """One answer, or what there is of it; the connection stays open."""
    heard = b""
    while not heard.endswith(b"}") and (piece := connection.recv(1 << 16)):
        heard += piece
    return heard


def status(heard: bytes) -> int:
    """Of the first answer; 0 where there is none."""
    return int(heard.split(maxsplit=2)[1]) if heard else 0


def admitted(server: ServerProcess, checkpoint: Path) -> int:
    """How many requests find a place of one more than the queue holds, all sent while loads hang."""
    with gated(checkpoint) as gate:
        connections = [sent(server, WHOLE) for _ in range(MAX_QUEUE + 1)]
        assert select.select(connections, [], [], SECONDS)[0], "more find a place than the queue holds"
        gate.open()
        statuses = [status(answer(connection)) for connection in connections]
    for connection in connections:
        connection.close()
    assert set(statuses) == {200, 503}
    return statuses.count(200)
