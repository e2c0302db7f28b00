"""The placer: a process that moves models' homes by measured rates and sizes, and answers for all nodes together.

    python -m core.cluster.placer FOLDER

While it is dead, homes stay where they are. It has no state but what it reads again: rates from the nodes' counters,
homes from the balancer.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import time
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from threading import Event, Thread
from typing import Protocol

import uvicorn

from ..config.cluster import ClusterSettings
from ..config.settings import settings_from_environment
from ..errors import NodeFailed, NodeRefused, ResidencyError
from ..http.schemas import StrategiesAnswer
from .homes import Homes, NodeRoom, order, place
from .log import set_up_log
from .node import KEEP_ALIVE
from .nodes import Nodes
from .rates import Rates, Reading
from .runtime_api import RuntimeApi, SlotState
from .settings_file import SettingsFile, check_change, cluster_of
from .status import create_status_app

log = logging.getLogger("residency")
STATUS_SOCKET = "status.sock"  # in the run folder
PERIOD = 5.0  # seconds between two readings
PATIENCE = 6  # readings for which a node that does not answer keeps its homes; a restart takes less
MOST_PRELOADS = 8  # models that move in one period, if they must be loaded first
REMEMBERED = 120  # readings for which a model that nobody asks for keeps its homes


class SomeNodes(Protocol):
    """What the placer wants of `Nodes`."""

    def read_all(self, slots: Collection[str]) -> Mapping[str, Reading]: ...
    def load(self, slot: str, strategy: str, model_id: str) -> object: ...


class SomeBalancer(Protocol):
    """What the placer wants of `RuntimeApi`."""

    def states(self) -> Mapping[str, SlotState]: ...
    def homes(self) -> Mapping[str, Homes]: ...
    def set_homes(self, homes: Mapping[str, Homes]) -> None: ...


class Placer:
    """Decides on homes, step by step."""

    def __init__(self, nodes: SomeNodes, balancer: SomeBalancer, settings: ClusterSettings) -> None:
        self._nodes = nodes
        self._balancer = balancer
        self._copies = settings.copies
        self._rates = Rates()
        self._rooms: dict[str, NodeRoom] = {}  # of the nodes that answered lately
        self._silent = Counter[str]()  # readings that each of them has missed
        self._unasked = Counter[str]()  # readings for which nobody has asked for a model that has homes

    def step(self, now: float) -> None:
        """Read the counters of all nodes at the time `now` in seconds, and move homes.

        Raises BalancerFailed if the balancer does not answer.
        """
        states = self._balancer.states()
        up = [slot for slot, each in states.items() if each.state == "up"]
        readings = self._nodes.read_all(up)
        self._note_rooms(states, readings)
        self._rates.add(now, readings)
        demands = self._rates.demands()
        before = self._balancer.homes()
        wanted = place(demands, self._rooms, self._copies, before)
        homes = self._unasked_homes(before, demands.keys()) | self._prepare(before, wanted, readings)
        if homes != before:
            self._balancer.set_homes(homes)

    def _note_rooms(self, states: Mapping[str, SlotState], readings: Mapping[str, Reading]) -> None:
        self._silent.update(self._rooms.keys() - readings.keys())
        for slot, reading in readings.items():
            self._rooms[slot] = NodeRoom(states[slot].weight, reading.budget)
            del self._silent[slot]
        for slot in list(self._rooms):
            is_unused = slot not in states or states[slot].state == "maintenance"
            if is_unused or self._silent[slot] > PATIENCE:
                del self._rooms[slot], self._silent[slot]

    def _unasked_homes(self, before: Mapping[str, Homes], asked: Collection[str]) -> dict[str, Homes]:
        """The homes of models that nobody asks for now. A placer that was just started knows of no request."""
        unasked = before.keys() - asked
        self._unasked = Counter({model: self._unasked[model] + 1 for model in unasked})
        return {
            model: homes
            for model, homes in before.items()
            if model in unasked and self._unasked[model] <= REMEMBERED and not self._rooms.keys().isdisjoint(homes)
        }

    def _prepare(
        self, before: Mapping[str, Homes], wanted: Mapping[str, Homes], readings: Mapping[str, Reading]
    ) -> dict[str, Homes]:
        """Load models at their new homes, where an old one has them in memory. Returns the homes that can be used."""
        homes: dict[str, Homes] = {}
        preloads = 0
        for model, new in wanted.items():
            old = before.get(model) or order(model, {slot: room.weight for slot, room in self._rooms.items()})[:1]
            held = next((readings[slot].resident[model] for slot in old if _holds(readings, slot, model)), None)
            cold = [slot for slot in new if slot not in old and slot in readings and not _holds(readings, slot, model)]
            if held is None or not cold:
                homes[model] = new
                continue
            preloads += 1
            if preloads <= MOST_PRELOADS and self._are_loaded(cold, held, model):
                homes[model] = new
            elif model in before:
                homes[model] = before[model]
        return homes

    def _are_loaded(self, slots: Collection[str], strategy: str, model: str) -> bool:
        """Load a model at its new homes. Returns whether they all answer; one that refuses will tell clients why."""
        try:
            for slot in slots:
                self._nodes.load(slot, strategy, model)
        except NodeFailed as error:
            log.warning("Model '%s' keeps its homes: %s", model, error)
            return False
        except NodeRefused as error:
            log.info("Model '%s' is not loaded before it moves: %s", model, error)
        return True


def _holds(readings: Mapping[str, Reading], slot: str, model: str) -> bool:
    return slot in readings and model in readings[slot].resident


class _ReadNodes:
    """The nodes as the placer reads them."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes

    def read_all(self, slots: Collection[str]) -> Mapping[str, Reading]:
        return self._nodes.ask_all(
            slots, lambda slot: Reading.of(self._nodes.metrics(slot), self._nodes.strategies(slot))
        )

    def load(self, slot: str, strategy: str, model_id: str) -> object:
        return self._nodes.load(slot, strategy, model_id)


def place_until(ended: Event, placer: Placer, period: float = PERIOD) -> None:
    """Let the placer make a step every `period` seconds. A failure of the balancer is logged once."""
    reason = ""
    while True:
        try:
            placer.step(time.monotonic())
            reason = ""
        except ResidencyError as error:
            if str(error) != reason:
                log.warning("Homes stay as they are: %s", error)
            reason = str(error)
        except Exception:
            log.exception("Homes stay as they are")
        if ended.wait(period):
            return


def main() -> None:
    """Run the placer of the cluster whose run folder is given, until SIGTERM."""
    parser = argparse.ArgumentParser(description="Moves models' homes, and answers for all nodes together.")
    parser.add_argument("folder", type=Path, help="the run folder of the cluster")
    parser.add_argument(
        "--config", type=Path, help="the file that POST /reload reads; without it, nodes have their own"
    )
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    settings = settings_from_environment()
    set_up_log(settings.log, "placer")
    cluster = cluster_of(settings, folder)
    nodes, balancer = Nodes(folder), RuntimeApi(folder)

    def slots() -> dict[str, bool]:
        return {slot: each.state == "up" for slot, each in balancer.states().items() if each.state != "maintenance"}

    def reload() -> dict[str, StrategiesAnswer]:
        up = [slot for slot, is_up in slots().items() if is_up]
        if arguments.config is None:
            return nodes.reload_all(up)
        file = SettingsFile(arguments.config, folder)
        check_change(settings, file.read(), len(balancer.states()))
        answers = nodes.change_all(up, file)
        os.kill(os.getppid(), signal.SIGHUP)  # who started us may have to start or end nodes
        return answers

    app = create_status_app(nodes, slots, settings.token, reload)
    ended = Event()
    if cluster.placement == "rate":
        placer = Placer(_ReadNodes(nodes), balancer, cluster)
        Thread(target=place_until, args=[ended, placer], name="placer", daemon=True).start()
    socket = folder / STATUS_SOCKET
    socket.unlink(missing_ok=True)
    uvicorn.run(
        app, uds=str(socket), log_config=None, log_level="warning", access_log=False, timeout_keep_alive=KEEP_ALIVE
    )
    ended.set()


if __name__ == "__main__":
    main()
