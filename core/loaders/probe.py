"""Probing a loaded model once for each state of its files, before it answers requests."""

from __future__ import annotations

import inspect
import json
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from ..checkpoints.cache import recall_or_make, remembered_file
from ..contracts import Loader, Model, Prediction
from ..errors import ModelCrashed, ModelReferenceError, NoTokens

log = logging.getLogger("residency")
SHORT, LONG = "It was good.", "Not worth the money, and the worst of all the things that I have ever seen in my life."
OVER_LIMIT = "good " * 1100  # exceeds the limit of most models; for one with a higher limit it takes long enough
PACKAGES = ("residency", "torch", "transformers", "tokenizers", "safetensors", "onnxruntime", "openvino")
EQUAL = 1e-6  # scores that differ by no more are equal
BATCH_TOLERANCE = 2e-2  # by which the scores of a text alone and in a batch may differ: bfloat16 rounds


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
    short, long = _ask(model, "a text", [SHORT])[0], _ask(model, "a text", [LONG])[0]
    doubts = _differences(
        "two texts together", [short, long], _ask(model, "two texts of different length", [SHORT, LONG])
    )
    try:
        empty = _ask(model, "an empty text", [""])
        doubts += _differences("an empty text beside another", empty, _ask(model, "an empty text", ["", LONG])[:1])
    except ModelReferenceError as error:
        if not isinstance(error.__cause__, NoTokens):  # an empty text may be refused; requests get the same error
            raise
    over = _ask(model, "a text over its limit", [OVER_LIMIT])[0]
    if all(_distance(short, other) <= EQUAL for other in (long, over)):
        doubts.append("gives the same answer to every text: its weights may be untrained.")
    return doubts


def _ask(model: Model, what: str, texts: Sequence[str]) -> list[Prediction]:
    try:
        predictions = [Prediction.of(prediction) for prediction in model.predict(texts)]
    except ModelCrashed:
        raise
    except Exception as error:
        raise ModelReferenceError(f"it cannot answer {what}: {str(error) or type(error).__name__}") from error
    if len(predictions) != len(texts):
        raise ModelReferenceError(f"it gives {len(predictions)} answers to {what}")
    for label, score in predictions:
        if not isinstance(label, str):
            raise ModelReferenceError(f"it answers {what} with the label {label!r}, which is not text")
        if not math.isfinite(score):
            raise ModelReferenceError(f"it answers {what} with the score {score!r}, which is not a finite number")
    return predictions


def _differences(what: str, alone: Sequence[Prediction], together: Sequence[Prediction]) -> list[str]:
    worst = max(map(_distance, alone, together))
    if worst <= BATCH_TOLERANCE:
        return []
    return [f"answers {what} differently than each alone: scores differ by {worst:.3g}."]


def _distance(one: Prediction, other: Prediction) -> float:
    """The largest difference of scores; relative for scores above 1, and infinite if the labels differ."""
    if [label for label, _ in one.scores] != [label for label, _ in other.scores]:
        return math.inf
    pairs = zip(one.scores, other.scores, strict=True)
    return max(abs(a - b) / max(1.0, abs(a), abs(b)) for (_, a), (_, b) in pairs)


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
