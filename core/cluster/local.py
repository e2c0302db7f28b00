"""A cluster on this machine: HAProxy, nodes and the placer, which end with this process, however it ends."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from ..config.cluster import MAX_NODES
from ..config.settings import Settings
from ..errors import BalancerFailed, CannotUpdate, ResidencyError, SettingsError
from .balancer import Balancer, binary
from .children import Kept
from .companions import BalancerProcess, PlacerProcess
from .local_nodes import LocalNodes
from .log import set_up_log
from .node import KILL_AFTER, token_of
from .nodes import TOKEN_FILE, Nodes
from .other_nodes import OtherNodes
from .run_folder import run_folder
from .runtime_api import RuntimeApi
from .settings_file import SettingsFile, check_change, cluster_of, needs_restart

log = logging.getLogger("residency")
LEAST_SLOTS = 16  # so many nodes can run without a restart of the cluster, or twice as many as there are at first
AT_ONCE = 64  # nodes that are started or ended at a time
OK, INTERRUPTED = 0, 130


class Cluster:
    """HAProxy and the placer, with nodes of its own or, at `addresses`, of somebody else, who starts and ends them."""

    def __init__(
        self, file: SettingsFile, settings: Settings, folder: Path, host: str, port: int, addresses: Sequence[str] = ()
    ) -> None:
        self._file = file
        self._settings = settings
        self._folder = folder
        self._bind = host, port
        self._others = OtherNodes(addresses) if addresses else None
        token = token_of(settings)
        (folder / TOKEN_FILE).touch(0o600)
        (folder / TOKEN_FILE).write_text(token)
        first = 0 if addresses else cluster_of(settings, file.source).nodes.min
        self._nodes = LocalNodes(folder, file, min(MAX_NODES, max(LEAST_SLOTS, 2 * first)), token)
        self._balancer = BalancerProcess(folder, self._make_balancer)
        self._placer = PlacerProcess(folder, None if addresses else file.source)
        self._companions = [Kept("HAProxy", self._balancer), Kept("The placer", self._placer)]
        self._status = OK
        self._following: asyncio.Task[None] | None = None  # where the names of others' nodes lead
        self._told_to_end = asyncio.Event()
        self._told_to_change = asyncio.Event()

    async def run(self) -> int:
        """Serve until a signal. Returns the exit status. Raises ResidencyError if the cluster cannot start."""
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(AT_ONCE))
        self._handle_signals(loop)
        serving, ending = asyncio.create_task(self._serve()), asyncio.create_task(self._told_to_end.wait())
        try:
            await asyncio.wait({serving, ending}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                serving.result()  # raises
        finally:
            for task in (serving, ending):
                task.cancel()
                with suppress(asyncio.CancelledError, ResidencyError):
                    await task
            await self._end()
        return self._status

    def _handle_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        """SIGHUP means that the file has changed, unless it comes because our terminal is gone."""
        has_terminal = os.isatty(2)

        def end(status: int) -> None:
            if self._told_to_end.is_set():  # somebody is in a hurry
                self._kill()
            self._status = status
            self._told_to_end.set()

        def change() -> None:
            if has_terminal and not os.isatty(2):
                end(INTERRUPTED)
            else:
                self._told_to_change.set()

        loop.add_signal_handler(signal.SIGTERM, end, OK)
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # a shell makes background jobs ignore it
            loop.add_signal_handler(signal.SIGINT, end, INTERRUPTED)
        loop.add_signal_handler(signal.SIGHUP, change)

    async def _serve(self) -> None:
        began = time.monotonic()
        if self._others is None:
            self._nodes.start(cluster_of(self._settings, self._file.source).nodes.min, self._settings)
        self._balancer.start()
        self._placer.start()
        for companion in self._companions:
            companion.keep()
        if self._others:
            self._following = asyncio.create_task(self._others.follow(self._folder))
        await self._nodes.wait_until_ready(self._nodes.used)
        if not await self._nodes.are_up():
            raise BalancerFailed("HAProxy does not find the nodes ready.")
        host, port = self._bind
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        names = ", ".join(self._others.given if self._others else self._nodes.used)
        log.info("Ready after %.2f s at %s. Nodes: %s.", time.monotonic() - began, url, names)
        while True:
            await self._told_to_change.wait()
            self._told_to_change.clear()
            await self._change()

    def _make_balancer(self) -> Balancer:
        settings = self._settings
        only = next(iter(settings.models)) if len(settings.models) == 1 else None
        return Balancer(
            self._folder,
            cluster_of(settings, self._file.source),
            self._others.addresses if self._others else self._nodes.addresses,
            *self._bind,
            settings.default or only,
            unused=() if self._others else self._nodes.unused,
            weights=self._others.weights if self._others else None,
            only_model=only is not None,
            hosts=settings.allowed_hosts,
            models=settings.models,
        )

    async def _change(self) -> None:
        """Read the file again, and change what has changed. If that fails, nodes keep their settings."""
        try:
            after = self._file.read()
            check_change(self._settings, after, MAX_NODES if self._others else len(self._nodes.addresses))
            await (self._change_others(after) if self._others else self._change_nodes(after))
        except ResidencyError as error:
            log.error("The settings stay as they are: %s", error)

    async def _change_others(self, after: Settings) -> None:
        if after.token is None:
            raise SettingsError("token: is needed to change the settings of nodes that others run.")
        slots = [slot for slot, each in RuntimeApi(self._folder).states().items() if each.state == "up"]
        await asyncio.to_thread(Nodes(self._folder).reload_all, slots)
        await asyncio.to_thread(RuntimeApi(self._folder).set_engines, after.models)
        self._settings = after
        log.info("All nodes have read their settings again.")

    async def _change_nodes(self, after: Settings) -> None:
        if not await self._nodes.are_up():
            raise CannotUpdate("a node is down; try again when it is up.")
        before = self._settings
        if needs_restart(before, after):
            await self._nodes.restart_all(before, after)
        else:
            nodes = Nodes(self._folder)
            await asyncio.to_thread(nodes.change_all, self._nodes.used, self._file)
        await asyncio.to_thread(RuntimeApi(self._folder).set_engines, after.models)
        self._settings = after
        cluster = cluster_of(after, self._file.source)
        await self._nodes.resize(cluster.nodes.min, after)
        if before.cluster and (before.cluster.placement, before.cluster.copies) != (cluster.placement, cluster.copies):
            await asyncio.to_thread(self._placer.stop)  # and it is started again
        log.info("All nodes have the settings of %s: %s.", self._file.source, ", ".join(self._nodes.used))

    async def _end(self) -> None:
        """End all processes, HAProxy first: the requests that it has are answered."""
        if self._following:
            self._following.cancel()
        for companion in self._companions:
            await companion.release()
        grace = self._settings.shutdown_timeout
        await asyncio.to_thread(self._balancer.stop, grace)
        await self._nodes.stop(grace + KILL_AFTER)
        await asyncio.to_thread(self._placer.stop)

    def _kill(self) -> None:
        self._balancer.kill()
        self._nodes.kill()
        self._placer.kill()


def serve(config: Path, host: str, port: int, addresses: Sequence[str] = ()) -> int:
    """Serve the models of a file on several nodes until a signal. Returns the exit status.

    Raises ResidencyError if the file is wrong or the cluster cannot start.
    """
    binary()
    with run_folder() as folder:
        file = SettingsFile(config.absolute(), folder)
        settings = file.read()
        if addresses and cluster_of(settings, config).secret is None:
            raise SettingsError(
                f"{config}: cluster.secret: is needed for nodes at other addresses, which must have it."
            )
        _check_port(host, port)
        set_up_log(settings.log)
        file.write()
        return asyncio.run(Cluster(file, settings, folder, host, port, addresses).run())


def _check_port(host: str, port: int) -> None:
    """Raise BalancerFailed if nobody can listen there. HAProxy would share the port with another of this user."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "this is no name of a host"
        raise BalancerFailed(f"--port {port}: cannot be used at {host}: {reason}.") from error
