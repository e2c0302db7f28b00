"""Nodes that somebody else runs, such as the pods of Kubernetes: their names, and where these lead at the moment."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ..errors import BalancerFailed, SettingsError
from .node import slot_names
from .runtime_api import RuntimeApi

FOLLOW_SECONDS = 5.0
MAX_WEIGHT = 256  # HAProxy's limit
LookUp = Callable[[str, int], str | None]


def look_up(host: str, port: int) -> str | None:
    """The IP address and port that a name leads to; None if it leads nowhere."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # UnicodeError: a name such as a..b
        return None
    ip = str(found[0][4][0])
    return f"{f'[{ip}]' if ':' in ip else ip}:{port}"


class OtherNodes:
    """The nodes at some addresses, each with a slot. What a name leads to may change, and need not exist yet."""

    def __init__(self, given: Sequence[str], look_up: LookUp = look_up) -> None:
        """`given` has `HOST:PORT`, or `HOST:PORT=2` for a node of twice the size. Raises SettingsError."""
        self.given = tuple(given)
        parsed = dict(zip(slot_names(len(given)), map(_parse, given), strict=True))
        self._look_up = look_up
        self._names = {slot: (host, port) for slot, (host, port, _) in parsed.items()}
        self.weights: Mapping[str, int] = {slot: weight for slot, (_, _, weight) in parsed.items()}
        self.addresses: dict[str, str | None] = {slot: look_up(*name) for slot, name in self._names.items()}

    async def follow(self, folder: Path, period: float = FOLLOW_SECONDS) -> None:
        """Tell HAProxy when a name leads elsewhere, as that of a pod does when the pod is replaced."""
        api = RuntimeApi(folder)
        while True:
            await asyncio.sleep(period)
            for slot, before in list(self.addresses.items()):
                address = await asyncio.to_thread(self._look_up, *self._names[slot])
                if address is None or address == before:
                    continue  # health checks find out whether a node is still where it was
                with suppress(BalancerFailed):  # it is being started again; the next time
                    api.disable(slot)
                    api.set_address(slot, address)
                    api.use(slot)
                    self.addresses[slot] = address


def _parse(given: str) -> tuple[str, int, int]:
    """Host, port and weight."""
    address, _, weight = given.partition("=")
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port) < 1 << 16):
        raise SettingsError(f"--node: must be HOST:PORT, such as node-0.nodes:8001, not {given[:100]!r}.")
    if weight and not (weight.isdecimal() and 0 < int(weight) <= MAX_WEIGHT):
        raise SettingsError(f"--node: a weight is a whole number from 1 to {MAX_WEIGHT}, not {weight[:20]!r}.")
    return host.removeprefix("[").removesuffix("]"), int(port), int(weight or 1)
