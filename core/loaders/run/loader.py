"""Starts engines, and waits until they are ready."""

from __future__ import annotations

import http.client
import logging
import multiprocessing
import os
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from time import monotonic

from ...config.engines import EngineChoice
from ...config.variables import PREFIX
from ...errors import EngineFailed
from ...system.memory import tree
from .commands import check_program, words
from .guarded import Guarded
from .leftovers import RunFile, run_stop, stop_leftovers
from .ports import Listener, Ports, can_tell_listeners, is_open, listeners, sockets_of
from .process import EngineProcess
from .sizes import Peak

log = logging.getLogger("residency")
PORT_TRIES = 3  # of others that were faster to listen on a port
POLL_SECONDS = 5.0  # for an answer to a question whether it is ready
LEAST_PAUSE, MOST_PAUSE = 0.005, 0.25  # seconds between questions: a twentieth of the time since the start
OUR_THREADS = ("OMP_NUM_THREADS", "GOMP_SPINCOUNT")  # set in this process for its own forwards


class PortTaken(EngineFailed):
    """Another process listens on the port."""


class EngineLoader:
    """Starts engines. One object serves all strategies of a process."""

    def __init__(self) -> None:
        self._ports = Ports()

    def prepare(self, choices: Mapping[str, EngineChoice]) -> None:
        """Stop what a killed server has left running elsewhere, and log what an operator should know."""
        stop_leftovers()
        for model_id, choice in choices.items():
            if choice.stop is not None and choice.fixed_bytes is None:
                log.warning(
                    "Model '%s' has 'stop': if it runs elsewhere, as in a container, its memory cannot be measured; set"
                    " 'memory: {fixed: …}'.",
                    model_id,
                )
        if choices and multiprocessing.parent_process() is not None:
            log.info("This process is a worker. Each worker starts engines of its own: %s.", ", ".join(choices))

    def size(self, model_id: str, choice: EngineChoice) -> int | None:
        """Bytes that the engine will take: as configured, or as the last time, or those of its files; None: unknown.

        Raises EngineFailed if the command cannot be run.
        """
        values = _values(model_id, choice, port=0)
        command = words(choice.run, values)
        check_program(command, values)
        if choice.memory is not None:
            return choice.declared_bytes
        peak = Peak(command, choice.environment)
        return peak.recall() or peak.guess()

    def load(self, model_id: str, choice: EngineChoice) -> EngineProcess:
        """Start the engine, and wait until it is ready. Raises EngineFailed if it is not within its time."""
        for tries_left in reversed(range(PORT_TRIES)):
            port = self._ports.take(choice.port, choice.within)
            try:
                engine = _Start(model_id, choice, port).run()
                if choice.port is not None:
                    self._ports.started(port, engine)
                return engine
            except PortTaken:
                if choice.port is not None or not tries_left:
                    raise
            finally:
                self._ports.give_back(port)
        raise AssertionError


class _Start:
    """One start of an engine on one port."""

    def __init__(self, model_id: str, choice: EngineChoice, port: int) -> None:
        self._choice = choice
        self._port = port
        self._model_id = model_id
        self._began = monotonic()
        self._deadline = self._began + choice.within
        self._last = "it does not listen on its port"  # what keeps it from being ready, as a part of a sentence
        self._guarded: Guarded

    def run(self) -> EngineProcess:
        """Start it, and wait until it is ready. Nothing of it is left after an error."""
        choice, model_id = self._choice, self._model_id
        values = _values(model_id, choice, self._port)
        environment = {name: value for name, value in values.items() if name not in ("port", "model")}
        command = words(choice.run, values)
        check_program(command, environment)
        stop = words(choice.stop, values) if choice.stop else None
        if is_open(self._port):
            raise self._port_taken()
        peak = Peak(words(choice.run, values | {"port": "0"}), choice.environment)
        run_file = RunFile(model_id, stop, choice.environment) if stop else None
        try:
            self._guarded = Guarded(model_id, command, environment)
        except BaseException:
            if run_file:
                run_file.close()
            raise
        spawned = monotonic()
        guess = choice.declared_bytes or peak.recall() or peak.guess() or 0
        stop_it = (lambda: run_stop(model_id, stop, environment)) if stop else None
        engine = EngineProcess(choice, self._guarded, "", peak, {}, guess, stop_it, run_file)
        try:
            engine.url = self._wait_until_ready()
            engine.phases = {"spawn": spawned - self._began, "ready": monotonic() - spawned}
            engine.measure()
        except BaseException:
            self._guarded.kill()  # it has answered nothing yet, so it need not end in order
            engine.close()
            raise
        return engine

    def _wait_until_ready(self) -> str:
        """The URL at which the engine answers, as soon as it is ready."""
        host = "" if self._choice.stop is None and can_tell_listeners() else "127.0.0.1"
        while True:
            ended = self._guarded.ended.is_set()
            if ended and not (self._choice.stop is not None and self._guarded.status == 0):
                raise self._ended()
            host = host or self._listening_host()
            if host and self._is_ready(host):
                return f"http://{host}:{self._port}"
            now = monotonic()
            if now >= self._deadline:
                late = f"it was not ready within {self._choice.within:g} s: {self._last}"
                longer = "If it only needs longer, raise 'within'."
                raise EngineFailed(f"{late}{self._guarded.last_words()}. {longer}", f"{late}. {longer}")
            pause = min(MOST_PAUSE, max(LEAST_PAUSE, (now - self._began) / 20), self._deadline - now)
            (self._guarded.gone if ended else self._guarded.ended).wait(pause)

    def _ended(self) -> EngineFailed:
        self._guarded.gone.wait(POLL_SECONDS)  # so that its last lines are read
        status = self._guarded.status
        if status is None:
            how = "was killed together with its guardian"
        else:
            how = f"ended with status {status}" if status >= 0 else f"was ended by signal {-status}"
        early = f"its command {how} before it was ready"
        if status == 0:  # as one that goes to the background, where it would be ended
            early = f"{early}; it must stay in the foreground"
        return EngineFailed(f"{early}{self._guarded.last_words()}.", f"{early}; its output is in the log.")

    def _listening_host(self) -> str:
        """The host at which the engine listens; "" as long as it does not. Raises PortTaken if somebody else does."""
        if not is_open(self._port) or not (found := listeners(self._port)):
            return ""
        own = sockets_of(tree(self._guarded.pid))
        if any(listener.inode not in own for listener in found):
            # It may have ended, or been replaced by a child of its own, since the sockets were listed.
            strangers = {each.inode for each in found} - sockets_of(tree(self._guarded.pid))
            if strangers & {each.inode for each in listeners(self._port)}:
                raise self._port_taken()
            return ""
        return _nearest(found)

    def _port_taken(self) -> PortTaken:
        return PortTaken(
            f"another process listens on port {self._port}. If it is what the command has started elsewhere, say under"
            " 'stop' how to stop it."
        )

    def _is_ready(self, host: str) -> bool:
        connection = http.client.HTTPConnection(host.strip("[]"), self._port, timeout=self._poll_seconds())
        try:
            connection.request("GET", self._choice.ready)
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            self._last = f"it gave no answer ({type(error).__name__}) when it was asked whether it is ready"
            return False
        finally:
            connection.close()
        self._last = f"it answered {status}, not 200, when it was asked whether it is ready"
        return status == 200

    def _poll_seconds(self) -> float:
        return max(0.1, min(POLL_SECONDS, self._deadline - monotonic()))


def _nearest(found: list[Listener]) -> str:
    return min((listener.host for listener in found), key=lambda host: host.startswith("["))


def _values(model_id: str, choice: EngineChoice, port: int) -> dict[str, str]:
    """The values of macros: the engine's environment, and `port` and `model`.

    Our own settings are not for others: one is a token, and an engine may be another Residency.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    for name in OUR_THREADS:
        if name in inherited and name not in _given():
            del inherited[name]
    return {**inherited, **choice.environment, "port": str(port), "model": model_id}


@cache
def _given() -> frozenset[str]:
    """The names of the variables with which this process was started."""
    with suppress(OSError):
        return frozenset(
            os.fsdecode(entry.partition(b"=")[0]) for entry in Path("/proc/self/environ").read_bytes().split(b"\0")
        )
    return frozenset(OUR_THREADS)


@cache
def engine_loader() -> EngineLoader:
    """The loader of this process's engines."""
    return EngineLoader()
