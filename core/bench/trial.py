"""One trial in one round: start a server, time its first answer, then its steady state, then its memory."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from ..errors import TrialFailed
from . import memory
from .client import ask, connect
from .experiment import Plan, TrialPlan
from .records import Records
from .server import ServerProcess, serve

SETTLE_SECONDS = 0.1  # after an answer, for the model to be freed
IDLE_SECONDS = 1.0  # by definition: memory is idle one second after the last request
Tick = Callable[[], None]


@dataclass(frozen=True)
class Trial:
    """What a round's trial needs to run."""

    plan: Plan
    spec: TrialPlan
    checkpoints: Mapping[str, Path]
    number: int  # of the round, from 0

    @property
    def settings(self) -> dict[str, Any]:
        """Of the server: this one strategy, and models as directories that are there already."""
        return {
            "strategies": [self.spec.choice.model_dump(exclude={"label"})],
            "models": {model_id: str(directory) for model_id, directory in self.checkpoints.items()},
            "plugins": self.plan.experiment.plugins,
        }

    def schedule(self) -> list[tuple[str, int]]:
        """(model id, index of a text) of each request, shuffled: the same for every trial of a round.

        A fixed cycle over more models than fit would make any LRU look useless.
        """
        experiment = self.plan.experiment
        once = [(model, i) for model in experiment.models for i in range(len(self.plan.texts))]
        requests = once * experiment.repetitions
        random.Random(f"{experiment.seed}/{self.number}").shuffle(requests)
        return requests


def run_trial(trial: Trial, records: Records, tick: Tick) -> None:
    """Run it and append all that it measures; `tick` is called after each request. Raises TrialFailed."""
    timeout = trial.plan.experiment.timeout
    with serve(trial.settings) as server, connect(server.url, timeout) as client:
        try:
            ready = server.wait_until_ready(client, timeout)
            [strategy] = client.get("/strategies").raise_for_status().json()["strategies"]
            send = _Sender(trial, strategy["route"], client, server.pid, records, tick)
            answered = send(next(iter(trial.checkpoints)), 0, first=True)
            first_answer = time.perf_counter() - server.started if answered else None
            memory.reset_peak(server.pid)
            steady = time.perf_counter()
            for model_id, text in trial.schedule():
                send(model_id, text)
            steady = time.perf_counter() - steady
            [strategy] = client.get("/strategies").raise_for_status().json()["strategies"]
        except httpx.TimeoutException as error:
            raise TrialFailed(f"no answer within {timeout:g} s; raise 'timeout', or look into the loader.") from error
        except httpx.HTTPError as error:
            raise TrialFailed(
                f"the connection broke ({error}); the server's last words: {server.last_words()}"
            ) from error
        measured = _measure_memory(server)
    records.append(
        "trial",
        round=trial.number,
        trial=trial.spec.label,
        ready_s=ready,
        first_answer_s=first_answer,
        steady_s=steady,
        memory_mib=measured,
        loads=strategy["loads"],
        unloads=strategy["unloads"],
    )


def _measure_memory(server: ServerProcess) -> dict[str, float | None]:
    peak = memory.peak(server.pid)
    time.sleep(IDLE_SECONDS)
    pss, private = memory.at_rest(server.pid)
    return {"idle_pss": pss, "idle_private": private, "peak_rss": peak}


class _Sender:
    """Sends a request and appends its sample."""

    def __init__(self, trial: Trial, route: str, client: httpx.Client, pid: int, records: Records, tick: Tick) -> None:
        self._trial = trial
        self._route = route
        self._client = client
        self._pid = pid
        self._records = records
        self._tick = tick

    def __call__(self, model_id: str, text: int, *, first: bool = False) -> bool:
        """Whether it was answered without an error."""
        trial = self._trial
        sample = ask(self._client, self._route, model_id, trial.plan.texts[text])
        place = {"round": trial.number, "trial": trial.spec.label, "model": model_id, "text": text, "first": first}
        if trial.plan.experiment.memory_after_each:
            time.sleep(SETTLE_SECONDS)
            pss, private = memory.at_rest(self._pid)
            sample["memory_mib"] = {"pss": pss, "private": private}
        self._records.append("sample", **place, **sample)
        self._tick()
        return bool(sample["status"] == httpx.codes.OK)
