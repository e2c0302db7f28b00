"""HAProxy and the placer for nodes that Ray starts and ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

from ..config.settings import Settings
from ..errors import BalancerFailed
from .balancer import Balancer, RuntimeApi
from .blueprint import write_settings
from .children import Kept
from .companions import BalancerProcess, PlacerProcess
from .node import UNIX, secret_of, slot_names
from .nodes import TOKEN_FILE
from .run_folder import run_folder
from .settings_file import COPY
from .slots import EMPTY, Replica, Slot, Slots

log = logging.getLogger("residency")


class Listen(NamedTuple):
    """Where HAProxy listens for clients."""

    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


class Front:
    """HAProxy, the placer, and which replica has which slot. Use it in one thread, which lives as long as they."""

    def __init__(self, values: Mapping[str, Any], listen: Listen, token: str, taken: Mapping[str, str]) -> None:
        """`values` are the settings, and `taken` the replicas that had slots before, by the names of these."""
        self._settings = settings = Settings(**values)
        assert settings.cluster
        self._cluster = settings.cluster
        self._listen = listen
        self._is_local = secret_of(settings) is None
        self._stack = ExitStack()
        self._folder = self._stack.enter_context(run_folder())
        self._api = RuntimeApi(self._folder)
        self._slots = Slots(slot_names(self._cluster.nodes.max), taken)
        self._balancer = BalancerProcess(self._folder, self._make_balancer, assume_up=True)
        self._placer = PlacerProcess(self._folder, None)
        self._companions = [Kept("HAProxy", self._balancer), Kept("The placer", self._placer)]
        (self._folder / TOKEN_FILE).touch(0o600)
        (self._folder / TOKEN_FILE).write_text(token)
        write_settings(self._folder / COPY, {**values, "token": token})

    @property
    def taken(self) -> dict[str, str]:
        """The names of replicas by their slots."""
        return self._slots.taken

    def start(self) -> None:
        """Start HAProxy, which listens then, and the placer. Raises BalancerFailed."""
        self._balancer.start()
        self._placer.start()
        for companion in self._companions:
            companion.keep()

    async def stop(self, grace: float) -> None:
        """End HAProxy after the requests that it has, and the placer."""
        for companion in self._companions:
            await companion.release()
        await asyncio.to_thread(self._balancer.stop, grace)
        await asyncio.to_thread(self._placer.stop)
        self._stack.close()

    def update(self, replicas: Iterable[Replica]) -> bool:
        """Lead slots to these replicas, which are all there are. Returns whether anything has changed."""
        before = dict(self._slots.slots)
        changed = self._slots.update(replicas)
        for slot, state in changed.items():
            if self._is_local:
                self._link(slot, state)
            if self._balancer.is_alive:  # or it gets all addresses when it is started
                try:
                    self._tell(slot, before[slot], state)
                except BalancerFailed as error:
                    log.error("%s", error)
        return bool(changed)

    def _make_balancer(self) -> Balancer:
        slots, settings = self._slots.slots, self._settings
        only = next(iter(settings.models)) if len(settings.models) == 1 else None
        return Balancer(
            self._folder,
            self._cluster,
            {slot: self._socket(slot) if self._is_local else state.address for slot, state in slots.items()},
            *self._listen,
            settings.default or only,
            unused=[slot for slot, state in slots.items() if state == EMPTY or state.drains],
            only_model=only is not None,
            hosts=settings.allowed_hosts,
            models=settings.models,
        )

    def _tell(self, slot: str, before: Slot, state: Slot) -> None:
        """Tell HAProxy what has changed. Requests that a former node of the slot still has are answered there."""
        if state == EMPTY:
            self._api.disable(slot)
        elif state.drains:
            self._api.drain(slot)
        else:
            if not self._is_local and state.address != before.address:
                self._api.set_address(slot, str(state.address))
            self._api.use(slot)

    def _socket(self, slot: str) -> str:
        return f"{UNIX}{self._folder / slot}.sock"

    def _link(self, slot: str, state: Slot) -> None:
        """Let the socket of the slot lead to the node's. HAProxy cannot be told another path."""
        socket, fresh = (self._folder / f"{slot}.{suffix}" for suffix in ("sock", "new"))
        if state.address is None:
            socket.unlink(missing_ok=True)
            return
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(state.address.removeprefix(UNIX))
        fresh.replace(socket)
