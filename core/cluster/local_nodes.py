"""The nodes of a cluster on this machine: started, restarted one after the other, added and removed."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from ..config.settings import Settings
from ..errors import BalancerFailed, NodeFailed
from ..system.threads import VARIABLE as THREADS
from ..system.threads import cores
from .children import Kept, wait_until
from .node import KILL_AFTER, UNIX, NodeProcess, node_variables, secret_of, slot_names
from .runtime_api import RuntimeApi
from .settings_file import SettingsFile, cluster_of

log = logging.getLogger("residency")
START_SECONDS = 3600.0  # for the start-up loads of a node
UP_SECONDS = 60.0  # for nodes to pass a health check


class LocalNodes:
    """Nodes in the first of some slots. Each is started again when it ends."""

    def __init__(self, folder: Path, file: SettingsFile, slots: int, token: str) -> None:
        self.addresses = {name: f"{UNIX}{folder / name}.sock" for name in slot_names(slots)}
        self.used: list[str] = []
        self._file = file
        self._token = token
        self._api = RuntimeApi(folder)
        self._nodes: dict[str, NodeProcess] = {}
        self._kept: dict[str, Kept] = {}

    @property
    def unused(self) -> set[str]:
        """The slots without a node."""
        return self.addresses.keys() - set(self.used)

    def start(self, count: int, settings: Settings) -> None:
        """Start the first nodes, and return at once."""
        self.used = list(self.addresses)[:count]
        for slot in self.used:
            self._start(slot, settings)

    async def wait_until_ready(self, slots: Iterable[str]) -> None:
        """Wait for the start-up loads of nodes that were just started. Raises NodeFailed."""
        await asyncio.gather(*(self._wait_until_ready(slot) for slot in slots))

    async def are_up(self) -> bool:
        """Wait until the balancer has found all nodes ready, for a while, and return whether it has."""

        def are_up() -> bool:
            with suppress(BalancerFailed):  # it is being started again
                states = self._api.states()
                return all(states[slot].state == "up" for slot in self.used)
            return False

        return await wait_until(are_up, UP_SECONDS)

    async def resize(self, count: int, settings: Settings) -> None:
        """Have so many nodes. Raises NodeFailed if a new one cannot start."""
        while len(self.used) < count:
            await self._add(settings)
        while len(self.used) > count:
            await self._remove(self.used[-1], settings)

    async def restart_all(self, before: Settings, after: Settings) -> None:
        """Restart one node after the other, so that they use what stands in the user's file now.

        Raises NodeFailed if one cannot start. All nodes have the former settings then.
        """
        changed: list[str] = []
        try:
            with self._file.changing():
                if len(self.used) == 1:  # another node answers in the meantime
                    await self._add(after)
                    changed.append(self.used[-1])
                for slot in self.used:
                    if slot not in changed:
                        changed.append(slot)
                        await self._restart(slot, after)
        except NodeFailed:
            for slot in changed:
                await self._restart(slot, before)
            await self.resize(cluster_of(before, self._file.source).nodes.min, before)
            raise

    async def stop(self, grace: float) -> None:
        """End all nodes after the requests that they have. They are not started again."""
        for kept in self._kept.values():
            await kept.release()
        await asyncio.gather(*(asyncio.to_thread(node.stop, grace) for node in self._nodes.values()))

    def kill(self) -> None:
        """Kill all nodes."""
        for node in self._nodes.values():
            node.kill()

    def _start(self, slot: str, settings: Settings) -> None:
        variables = node_variables(settings, slot, self._token)
        if THREADS not in os.environ:
            # Nodes that each computed with all cores would wait for one another.
            variables[THREADS] = str(max(1, cores() // cluster_of(settings, self._file.source).nodes.min))
        self._nodes[slot] = NodeProcess(
            slot,
            self._file.copy,
            self.addresses[slot],
            Path.cwd(),
            variables,
            secret=secret_of(settings),
            host=next(iter(settings.allowed_hosts), None),
            logs_requests=settings.log == "json",
        )
        self._nodes[slot].start()

    async def _wait_until_ready(self, slot: str) -> None:
        await asyncio.to_thread(self._nodes[slot].wait_until_ready, START_SECONDS)
        self._kept[slot] = Kept(f"Node {slot}", self._nodes[slot])
        self._kept[slot].keep()

    async def _add(self, settings: Settings) -> None:
        slot = next(name for name in self.addresses if name not in self.used)
        self._start(slot, settings)
        try:
            await self._wait_until_ready(slot)
        except BaseException:
            self._nodes.pop(slot).kill()
            raise
        self.used.append(slot)
        await self._use(slot)
        log.info("Node %s is added.", slot)

    async def _remove(self, slot: str, settings: Settings) -> None:
        await self._drain(slot, settings)
        self.used.remove(slot)
        await self._end(slot, settings)
        await self._tell(self._api.disable, slot)
        log.info("Node %s is removed.", slot)

    async def _restart(self, slot: str, settings: Settings) -> None:
        await self._drain(slot, settings)
        await self._end(slot, settings)
        self._start(slot, settings)
        try:
            await self._wait_until_ready(slot)
        except NodeFailed:
            self._nodes[slot].kill()
            raise
        await self._use(slot)
        log.info("Node %s is restarted.", slot)

    async def _use(self, slot: str) -> None:
        """Send the node requests, and wait until it gets some: the balancer may not have found it ready yet."""
        await self._tell(self._api.use, slot)
        if not await self.are_up():
            raise NodeFailed(f"HAProxy does not find node {slot} ready.")

    async def _drain(self, slot: str, settings: Settings) -> None:
        """Send the node no further requests, and wait for those that it has. It ends those that take too long."""
        await self._tell(self._api.drain, slot)
        await wait_until(lambda: self._is_idle(slot), settings.shutdown_timeout)

    def _is_idle(self, slot: str) -> bool:
        with suppress(BalancerFailed):
            return not self._api.states()[slot].connections
        return False

    async def _tell(self, command: Callable[[str], None], slot: str) -> None:
        """Tell the balancer, which may have ended and be started again at the moment."""

        def is_told() -> bool:
            with suppress(BalancerFailed):
                command(slot)
                return True
            return False

        if not await wait_until(is_told, UP_SECONDS):
            command(slot)  # raises

    async def _end(self, slot: str, settings: Settings) -> None:
        if kept := self._kept.pop(slot, None):
            await kept.release()
        await asyncio.to_thread(self._nodes.pop(slot).stop, settings.shutdown_timeout + KILL_AFTER)
