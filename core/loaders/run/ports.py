"""Ports for engines: one that is free, and who listens on it."""

from __future__ import annotations

import os
import random
import socket
import sys
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from threading import Lock
from time import monotonic, sleep
from typing import NamedTuple, Protocol

from ...errors import EngineFailed
from ...system.listening import listening

# Below those that the kernel gives to outgoing connections (net.ipv4.ip_local_port_range): one of ours to another
# engine could otherwise take the port before the engine listens on it.
FIRST, LAST = 10_000, 32_000
TRIES = 200
WAIT_SECONDS = 0.05  # between looks whether a fixed port is free again
CONNECT_SECONDS = 1.0  # on the loopback interface, where only a full backlog takes any time


class Listener(NamedTuple):
    """A socket that listens on a port of the loopback interface."""

    host: str
    inode: str


class Holder(Protocol):
    """An engine that has a port."""

    @property
    def is_over(self) -> bool:
        """Whether nothing of it can listen on its port any more."""


class Ports:
    """The ports of this process's engines. No two of them have the same one at a time."""

    def __init__(self) -> None:
        self._lock = Lock()  # protects the attributes below
        self._starting: set[int] = set()  # of engines that are being started
        self._fixed: dict[int, Holder] = {}  # those that settings give, and the engines that had them last

    def take(self, fixed: int | None, seconds: float) -> int:
        """A free port for an engine that is started now, or the `fixed` one as soon as no engine of ours has it.

        So an engine can be replaced by one with other settings, once its requests have ended. Raises EngineFailed if
        the fixed one is not free within `seconds`.
        """
        end = monotonic() + seconds
        while not self._take_now(fixed):
            if monotonic() >= end:
                raise EngineFailed(
                    f"another engine of this server has had the port {fixed} for {seconds:g} s. Write ${{port}}"
                    " in 'run' instead, so that each start gets a port of its own."
                )
            sleep(WAIT_SECONDS)
        return fixed or self._take_any()

    def _take_now(self, fixed: int | None) -> bool:
        with self._lock:
            if fixed is None:
                return True
            holder = self._fixed.get(fixed)
            if fixed in self._starting or not (holder is None or holder.is_over):
                return False
            self._starting.add(fixed)
            return True

    def _take_any(self) -> int:
        with self._lock:
            port = free_port(self._starting)
            self._starting.add(port)
            return port

    def started(self, port: int, engine: Holder) -> None:
        """The engine has the port, which `take` has returned, until it is over."""
        with self._lock:
            self._fixed[port] = engine

    def give_back(self, port: int) -> None:
        """The start on the port has ended."""
        with self._lock:
            self._starting.discard(port)


def free_port(taken: Iterable[int] = ()) -> int:
    """A port on which nobody listens, and which is not in `taken`."""
    avoided = set(taken)
    for _ in range(TRIES):
        port = random.randint(FIRST, LAST)
        if port not in avoided and _can_bind(port):
            return port
    raise EngineFailed(f"no port from {FIRST} to {LAST} is free.")


def _can_bind(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def is_open(port: int) -> bool:
    """Whether anybody listens on the port. Nothing is sent."""
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with suppress(OSError), socket.socket(family) as probe:
            probe.settimeout(CONNECT_SECONDS)
            probe.connect((host, port))
            return True
    return False


def can_tell_listeners() -> bool:
    """Whether this system says who listens on a port."""
    if sys.platform != "linux":
        return False
    try:
        listening(0)
    except OSError:
        return False
    return True


def listeners(port: int) -> list[Listener]:
    """The sockets that listen on the port, as far as the loopback interface reaches them."""
    found = ((_host(each.address), str(each.inode)) for each in listening(port))
    return [Listener(host, inode) for host, inode in found if host]


def _host(address: IPv4Address | IPv6Address) -> str:
    """The host that reaches a socket which listens on the address; "" if the loopback interface does not."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is None:
            return "[::1]" if address.is_loopback else "127.0.0.1" if address.is_unspecified else ""
        address = address.ipv4_mapped
    return "127.0.0.1" if address.is_loopback or address.is_unspecified else ""


def sockets_of(pids: Iterable[int]) -> set[str]:
    """The inodes of the sockets that these processes have open."""
    found = set()
    for pid in pids:
        try:
            with os.scandir(f"/proc/{pid}/fd") as entries:
                links = [_target(entry.path) for entry in entries]
        except OSError:  # it has ended, or belongs to another user
            continue
        found |= {link[8:-1] for link in links if link.startswith("socket:[")}
    return found


def _target(path: str) -> str:
    try:
        return os.readlink(path)  # noqa: PTH115 - pathlib makes a path of `socket:[12]`
    except OSError:
        return ""
