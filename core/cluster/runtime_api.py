"""What a running HAProxy is told and asked over its admin socket: nodes that come and go, and the map of homes."""

from __future__ import annotations

import csv
import io
import ipaddress
import re
import socket
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from ..config.engines import EngineChoice
from ..errors import BalancerFailed

ADMIN_SOCKET, HOMES, ENGINES = "admin.sock", "homes.map", "engines.map"
BACKEND = "nodes"
MAX_SOCKET_PATH = 90  # bytes; Linux allows 107, of which HAProxy takes some while it starts
TIMEOUT_SECONDS = 10.0
SLOT, MODEL = re.compile(r"n[1-9][0-9]{0,3}"), re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
CHUNK = 16 << 10  # bytes of one command, which must fit into a buffer
State = Literal["up", "down", "drain", "maintenance"]
STATES: dict[str, State] = {"UP": "up", "DRAIN": "drain", "MAINT": "maintenance"}  # by the first word; others are down


class SlotState(NamedTuple):
    """A slot, as HAProxy sees it. `connections` counts the requests that it has there."""

    state: State
    connections: int
    weight: int = 1


class RuntimeApi:
    """The admin socket in `folder`. Every method raises BalancerFailed if HAProxy does not answer or refuses."""

    def __init__(self, folder: Path) -> None:
        self._socket = folder / ADMIN_SOCKET
        self._folder = folder

    def is_listening(self) -> bool:
        """Whether HAProxy answers."""
        try:
            self._ask("show version")
        except BalancerFailed:
            return False
        return True

    def set_address(self, slot: str, address: str) -> None:
        """Let a slot lead to `host:port`. Disable it before, and use it afterwards."""
        host, _, port = address.rpartition(":")
        try:
            found = socket.getaddrinfo(host.removeprefix("[").removesuffix("]"), int(port), type=socket.SOCK_STREAM)
            ip = ipaddress.ip_address(found[0][4][0])
        except (OSError, ValueError) as error:
            raise BalancerFailed(
                f"{address[:100]!r} is no address of a node such as 10.0.0.7:8001: {error}."
            ) from error
        self._change(f"set server {_server(slot)} addr {ip} port {int(port)}", accepted="changed|no need to change")

    def use(self, slot: str) -> None:
        """Send requests to a slot, at once: until a check fails, its node counts as ready."""
        self._change(f"set server {_server(slot)} state ready")

    def drain(self, slot: str) -> None:
        """Send no further requests to a slot. Those that it has are answered."""
        self._change(f"set server {_server(slot)} state drain")

    def disable(self, slot: str) -> None:
        """Put a slot into maintenance, without requests and checks. Requests that it still has are cut off."""
        self._change(f"set server {_server(slot)} state maint")

    def expect_checks(self, slots: Collection[str]) -> None:
        """Take the slots for down until they pass a check."""
        for slot in slots:
            self._change(f"set server {_server(slot)} health down")

    def states(self) -> dict[str, SlotState]:
        """The state of each slot."""
        rows = csv.DictReader(io.StringIO(self._ask(f"show stat {BACKEND} 4 -1").removeprefix("# ")))
        try:
            states = {
                row["svname"]: SlotState(
                    STATES.get(row["status"].split()[0], "down"), int(row["scur"]), int(row["weight"] or 1)
                )
                for row in rows
            }
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            states = {}
        if not states:  # it ends just now
            raise BalancerFailed("HAProxy does not say in which states the nodes are.")
        return states

    def homes(self) -> dict[str, tuple[str, ...]]:
        """The homes of each model that has an entry."""
        lines = (line.split() for line in self._ask(f"show map {HOMES}").splitlines())
        return {line[1]: tuple(line[2].split(",")) for line in lines if len(line) == 3}

    def set_homes(self, homes: Mapping[str, tuple[str, ...]]) -> None:
        """Replace all homes in one step, and in the file from which a restarted HAProxy reads them."""
        self._replace(HOMES, [_entry(model, names) for model, names in homes.items()])

    def set_engines(self, models: Mapping[str, str | EngineChoice]) -> None:
        """Replace the names of engines, in one step, and in their file."""
        self._replace(ENGINES, engine_lines(models))

    def _replace(self, name: str, lines: list[str]) -> None:
        """Replace a map."""
        temporary = (self._folder / name).with_suffix(".new")
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
        temporary.replace(self._folder / name)
        version = re.search(r"\d+", self._change(f"prepare map {name}", accepted="New version created"))
        assert version is not None
        for chunk in _chunks(lines):
            self._change(f"add map @{version[0]} {name} <<\n{chunk}\n")
        self._change(f"commit map @{version[0]} {name}")

    def _change(self, command: str, accepted: str = "") -> str:
        """Give a command. HAProxy answers nothing to those that it accepts, or what `accepted` describes."""
        answer = self._ask(command)
        if not (re.search(accepted, answer) if accepted else not answer.strip()):
            raise BalancerFailed(f"HAProxy refuses {command.splitlines()[0]!r}: {answer.strip()}")
        return answer

    def _ask(self, command: str) -> str:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(TIMEOUT_SECONDS)
                connection.connect(str(self._socket))
                connection.sendall(f"{command}\n".encode())
                connection.shutdown(socket.SHUT_WR)
                return b"".join(iter(lambda: connection.recv(65_536), b"")).decode()
        except OSError as error:
            raise BalancerFailed(f"HAProxy does not answer at {self._socket}: {error}.") from error


def _server(slot: str) -> str:
    if SLOT.fullmatch(slot) is None:
        raise BalancerFailed(f"A slot is named n1, n2 and so on, not {slot[:40]!r}.")
    return f"{BACKEND}/{slot}"


def _entry(model: str, names: tuple[str, ...]) -> str:
    if MODEL.fullmatch(model) is None or not names or not all(map(SLOT.fullmatch, names)):
        raise BalancerFailed(f"{model[:80]!r} with the homes {str(names)[:80]} cannot stand in the map of homes.")
    return f"{model} {','.join(names)}"


def engine_lines(models: Mapping[str, str | EngineChoice]) -> list[str]:
    """The lines of the map of engines: the bytes of each id and alias, so that no name can be anything else."""
    return [
        f"{name.encode().hex()} {model_id}:{choice.parallel}"
        for model_id, choice in models.items()
        if isinstance(choice, EngineChoice)
        for name in dict.fromkeys([model_id, *choice.aliases])
    ]


def _chunks(lines: list[str]) -> Iterator[str]:
    """Lines, joined to texts of at most `CHUNK` bytes."""
    part: list[str] = []
    size = 0
    for line in lines:
        if size + len(line) >= CHUNK:
            yield "\n".join(part) + "\n"
            part, size = [], 0
        part.append(line)
        size += len(line) + 1
    if part:
        yield "\n".join(part) + "\n"
