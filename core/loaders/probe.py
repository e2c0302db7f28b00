"""Probing a loaded model once for each state of its files, before it answers requests."""

from __future__ import annotations

import inspect
import json
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from ..checkpoints.cache import recall_or_make, remembered_file
from ..contracts import Loader, Model
from ..errors import ModelCrashed, ModelReferenceError, NoTokens
from ..tasks.classify import CLASSIFY
from ..tasks.table import TASKS
from ..tasks.task import Task

log = logging.getLogger("residency")
SHORT, LONG = "It was good.", "Not worth the money, and the worst of all the things that I have ever seen in my life."
OVER_LIMIT = "good " * 1100  # exceeds the limit of most models; for one with a higher limit it takes long enough
PACKAGES = ("residency", "torch", "transformers", "tokenizers", "safetensors", "onnxruntime", "openvino")
EQUAL = 5e-5  # results that are no further apart are equal


class Probed(NamedTuple):
    """What a probe depends on: a loader, its options, and the identity of a checkpoint's files."""

    loader: str
    options: str
    identity: str


class Probes:
    """The probes of one process. A model is probed once for its files, its loader, and the installed versions."""

    def __init__(self) -> None:
        self._lock = Lock()  # protects the dictionaries
        self._probing: defaultdict[Probed, Lock] = defaultdict(Lock)
        self._known: set[Probed] = set()

    def check(self, name: str, model: Model, loader: Loader, options: str, identity: str) -> None:
        """Probe `model`, of a checkpoint with that `identity`, unless an equal one was probed. Warnings use `name`.

        Raises ModelReferenceError if the model cannot answer, and ModelCrashed if its process has ended.
        """
        probed = Probed(loader.name, options, identity)
        if probed in self._known:  # at each load except the first
            return
        with self._lock:
            probing = self._probing[probed]
        with probing:
            if probed not in self._known:
                key = probe_key(loader, options, identity)
                for doubt in json.loads(recall_or_make(key, lambda: json.dumps(probe(model)))):
                    log.warning("Model '%s' %s", name, doubt)
                self._known.add(probed)

    def knows(self, loader: Loader, options: str, identity: str) -> bool:
        """Whether a probe, by this or an earlier process, found that such a model can answer."""
        file = remembered_file(probe_key(loader, options, identity))
        return Probed(loader.name, options, identity) in self._known or (file is not None and file.is_file())


def probe_key(loader: Loader, options: str, identity: str) -> str:
    """A name that changes with the checkpoint's files, the loader's code and options, and the versions of packages."""
    made_of = [identity, loader.name, options, _code_version(loader), *map(_installed_version, PACKAGES)]
    return f"answers-{sha256(chr(10).join(made_of).encode()).hexdigest()[:24]}"


def probe(model: Model) -> list[str]:
    """Doubts about the model's answers, each the end of a sentence that begins with the model's name.

    Raises ModelReferenceError if the model cannot answer.
    """
    check: Callable[[], None] = getattr(model, "check", lambda: None)
    check()
    task = find_task(getattr(model, "task", CLASSIFY.name))
    ask = partial(_ask, model.predict, task)
    short, long = ask("a text", [SHORT])[0], ask("a text", [LONG])[0]
    together = ask("two texts of different length", [SHORT, LONG])
    doubts = _differences(task, "two texts together", [short, long], together)
    try:
        empty = ask("an empty text", [""])
        beside = ask("an empty text beside another", ["", LONG])[:1]
        doubts += _differences(task, "an empty text beside another", empty, beside)
    except ModelReferenceError as error:
        if not isinstance(error.__cause__, NoTokens):  # an empty text may be refused; requests get the same error
            raise
    over = ask("a text over its limit", [OVER_LIMIT])[0]
    if all(task.apart(short, other) <= EQUAL for other in (long, over)):
        doubts.append("gives the same answer to every text: its weights may be untrained.")
    further: Mapping[str, Callable[[Sequence[Any]], Sequence[Any]]] = getattr(model, "also", {})
    for name, predict in further.items():
        _ask(predict, find_task(name), f"a text for the task '{name}'", [LONG])
    return doubts


def find_task(name: str) -> Task:
    """The row of the table of tasks. Raises ModelReferenceError if there is none of that name."""
    if name not in TASKS:
        raise ModelReferenceError(f"it has the task '{name}', which is none of {', '.join(TASKS)}")
    return TASKS[name]


def _ask(predict: Callable[[Sequence[Any]], Sequence[Any]], task: Task, what: str, texts: Sequence[str]) -> list[Any]:
    try:
        results = predict([task.from_text(text) for text in texts])
    except ModelCrashed:
        raise
    except Exception as error:
        raise ModelReferenceError(f"it cannot answer {what}: {str(error) or type(error).__name__}") from error
    if len(results) != len(texts):
        raise ModelReferenceError(f"it gives {len(results)} answers to {what}")
    try:
        normalized = [task.normalize(result) for result in results]
        for result in normalized:
            task.check(result)
    except (TypeError, ValueError) as error:
        raise ModelReferenceError(f"it answers {what} with {error}") from error
    return normalized


def _differences(task: Task, what: str, alone: Sequence[Any], together: Sequence[Any]) -> list[str]:
    worst = max(map(task.apart, alone, together))
    if worst <= 1:
        return []
    return [f"answers {what} differently than each alone: {worst:.2g} times as far apart as rounding explains."]


def _code_version(loader: Loader) -> str:
    """The time at which the loader's source file was changed; "" if it has none."""
    with suppress(OSError, TypeError):  # it was not defined in a file
        return str(Path(inspect.getfile(type(loader))).stat().st_mtime_ns)
    return ""


@cache
def _installed_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
