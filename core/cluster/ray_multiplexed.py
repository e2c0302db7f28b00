"""Ray's own `@serve.multiplexed`, for comparison. Its proxy takes a request to a replica with the model in memory.

This is written as in Ray's documentation: one class, whose handler gets the model of the request, and computes.
Requests name their model in the header `serve_multiplexed_model_id`. The loader is one of ours. What a trial reads,
such as `/strategies`, has the same form as ours: each replica appends its loads and unloads to a file, which all of
them read.
"""

from __future__ import annotations

import json
import tempfile
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..checkpoints.references import resolve
from ..config.settings import Settings
from ..contracts import Loader, Model, Prediction
from ..errors import SettingsError
from ..plugins import load_plugins
from ..serving.strategy import DeclaredStrategy
from ..system.threads import limit_torch
from .blueprint import Blueprint
from .nodes import NODE_HEADER

JOURNAL = "multiplexed-{node}.jsonl"
CAPACITY = "capacity"  # the reason of an unload


class Served(NamedTuple):
    """What each replica serves."""

    settings: Settings
    strategy: str
    route: str
    capacity: int
    """Models in memory at most; -1: no limit."""

    @classmethod
    def of(cls, blueprint: Blueprint) -> Served:
        """Raises SettingsError for settings that `@serve.multiplexed` has no counterpart of."""
        settings = blueprint.settings
        chosen = settings.strategies or []
        if len(chosen) != 1:
            raise SettingsError("With 'ray-multiplexed' there is one strategy; 'strategies' must have one.")
        declared = DeclaredStrategy.of(chosen[0], load_plugins(settings.plugins), {})
        decisions = declared.decisions
        if decisions.budget is not None or not decisions.shared:
            raise SettingsError(
                f"'@serve.multiplexed' limits the number of models, not their bytes: give '{declared.name}' the option"
                " 'capacity', or use another strategy that keeps a number of models."
            )
        return cls(settings, declared.name, declared.registered.route, decisions.capacity or -1)

    def loader(self) -> Loader:
        """The loader that the strategy uses."""
        choice = (self.settings.strategies or [])[0].loader
        registered = load_plugins(self.settings.plugins).loader(choice.name)
        loader: Loader = registered.cls(**registered.validate(choice.options))
        return loader


class Journal:
    """The loads and unloads of a replica, in a file that the other replicas read."""

    def __init__(self, node: str) -> None:
        self._file = (Path(tempfile.gettempdir()) / JOURNAL.format(node=node)).open("a", buffering=1, encoding="utf-8")

    def record(self, event: str, model: str, seconds: float, nbytes: int, dtype: str = "") -> None:
        """Append an event."""
        entry = {"event": event, "model": model, "at": time.time(), "seconds": seconds, "bytes": nbytes, "dtype": dtype}
        self._file.write(f"{json.dumps(entry)}\n")

    @staticmethod
    def read_all() -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """Each replica's name with its events."""
        for path in sorted(Path(tempfile.gettempdir()).glob(JOURNAL.format(node="*"))):
            node = path.stem.rpartition("-")[2]
            yield node, [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class LoadedModel:
    """A model in memory. It is closed when nothing refers to it any more: Ray drops it while requests may use it."""

    def __init__(self, model: Model, on_end: Callable[[float], None]) -> None:
        self.predict = model.predict
        weakref.finalize(self, _close, model, on_end)


def _close(model: Model, on_end: Callable[[float], None]) -> None:
    started = time.perf_counter()
    model.close()
    on_end(time.perf_counter() - started)


def multiplexed(blueprint: Blueprint) -> serve.Application:
    """The application. Raises SettingsError."""
    served = Served.of(blueprint)

    class Multiplexed(Replica):
        @serve.multiplexed(max_num_models_per_replica=served.capacity)  # type: ignore[untyped-decorator]
        async def get_model(self, model_id: str) -> LoadedModel:
            return self.load(model_id)

    deployment = serve.deployment(Multiplexed).options(
        num_replicas=blueprint.cluster.nodes.max,
        ray_actor_options={"num_cpus": blueprint.cluster.resources.num_cpus},
        logging_config={"enable_access_log": False},  # as the other servers of an experiment
    )
    return deployment.bind(served)


class Replica(ABC):
    """A replica, but for the decorator."""

    def __init__(self, served: Served) -> None:
        limit_torch()
        rank = serve.get_replica_context().rank
        self._served = served
        self._node = f"n{rank.rank + 1 if rank else 1}"
        self._loader = served.loader()
        self._checkpoints = {name: resolve(str(reference)) for name, reference in served.settings.models.items()}
        if prepare := getattr(self._loader, "prepare", None):
            prepare(next(iter(self._checkpoints.values())))
        self._journal = Journal(self._node)
        self._loads = 0
        self._load_seconds = 0.0

    @abstractmethod
    async def get_model(self, model_id: str) -> LoadedModel:
        """The model, which Ray keeps in memory."""

    def load(self, model_id: str) -> LoadedModel:
        """Load the model. It computes and loads in Ray's event loop, as in the documentation."""
        started = time.perf_counter()
        model = self._loader.load(self._checkpoints[model_id])
        self._load_seconds = time.perf_counter() - started
        self._loads += 1
        nbytes, record = model.nbytes, self._journal.record
        record("load", model_id, self._load_seconds, nbytes, getattr(model, "dtype", ""))
        return LoadedModel(model, lambda seconds: record("unload", model_id, seconds, nbytes))

    async def __call__(self, request: Request) -> Response:
        """Answer a prediction, or what a trial asks about the state."""
        if request.url.path != self._served.route:
            return _answer_status(request, self._served)
        body = await request.json()
        model_id = serve.get_multiplexed_model_id() or body["model"]
        before = self._loads
        model = await self.get_model(model_id)
        load_seconds = self._load_seconds if self._loads != before else 0.0
        started = time.perf_counter()
        [predicted] = model.predict([body["text"]])
        parts = {"queue": 0.0, "load": load_seconds, "inference": time.perf_counter() - started}
        timing = ", ".join(f"{name};dur={seconds * 1e3:.3f}" for name, seconds in parts.items())
        answer = {
            "strategy": self._served.strategy,
            "model": model_id,
            "predictions": [_prediction(Prediction.of(predicted), body.get("top_k", 0))],
            "cold": load_seconds > 0,
        }
        return JSONResponse(answer, headers={"Server-Timing": timing, NODE_HEADER: self._node})


def _prediction(prediction: Prediction, count: int) -> dict[str, Any]:
    top = [{"label": label, "score": score} for label, score in prediction.ranked()[:count]]
    return {"label": prediction.label, "score": prediction.score, **({"top": top} if count else {})}


def _answer_status(request: Request, served: Served) -> Response:
    """`/readyz`, `/strategies` and `/residency` for all replicas, as far as a trial reads them."""
    match request.url.path:
        case "/readyz":
            return JSONResponse({"status": "ready", "checked": True, "unavailable": []})
        case "/strategies":
            return JSONResponse({"strategies": [_status(served, *each) for each in Journal.read_all()]})
        case "/residency":
            return JSONResponse({"strategies": [_residency(served, *each) for each in Journal.read_all()]})
    return JSONResponse({"detail": f"There is only {served.route}."}, 404)


def _status(served: Served, node: str, events: list[dict[str, Any]]) -> dict[str, Any]:
    loader = (served.settings.strategies or [])[0].loader.name
    loads, unloads = ([each for each in events if each["event"] == kind] for kind in ("load", "unload"))
    used = {
        each["model"]: {"model": each["model"], "loader": loader, "dtype": each["dtype"], "nbytes": each["bytes"]}
        for each in loads
    }
    return {
        "node": node,
        "name": served.strategy,
        "route": served.route,
        "loader": loader,
        "loads": len(loads),
        "unloads": len(unloads),
        "unload_s": sum(each["seconds"] for each in unloads),
        "used": list(used.values()),
        "resident": [
            {"model": model, "bytes": used[model]["nbytes"], "since": last["at"]}
            for model, last in _latest(events).items()
            if last["event"] == "load"
        ],
        "least_keep": None,
    }


def _residency(served: Served, node: str, events: list[dict[str, Any]]) -> dict[str, Any]:
    def history(model: str) -> list[dict[str, Any]]:
        return [
            {
                "event": each["event"],
                "reason": "request" if each["event"] == "load" else CAPACITY,
                "at": each["at"],
                "seconds": each["seconds"],
            }
            for each in reversed(events)
            if each["model"] == model
        ]

    return {
        "node": node,
        "name": served.strategy,
        "budget_bytes": None,
        "models": [{"model": model, "history": history(model)} for model in served.settings.models],
    }


def _latest(events: list[dict[str, Any]]) -> Mapping[str, dict[str, Any]]:
    """The last event of each model."""
    return {each["model"]: each for each in events}
