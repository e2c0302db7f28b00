"""Whether a model that was loaded can answer: asked once for each state of its files, before anyone else asks."""

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

from ..checkpoints.cache import known, remembered
from ..contracts import Loader, Model, Prediction
from ..errors import ModelCrashed, ModelReferenceError, NoTokens

log = logging.getLogger("residency")
SHORT, LONG = "It was good.", "Not worth the money, and the worst of all the things that I have ever seen in my life."
OVER_LIMIT = "good " * 1100  # over the limit of most models; one with a higher limit computes long enough for this one
PACKAGES = ("residency", "torch", "transformers", "tokenizers", "safetensors", "onnxruntime", "openvino")
ALIKE = 1e-6  # scores that are no further apart are the same
IN_COMPANY = 2e-2  # and these, of one text alone and beside another, are near enough: bfloat16 rounds


class Probed(NamedTuple):
    """What was probed: a loader, its options, and the identity of a checkpoint's files."""

    loader: str
    options: str
    identity: str


class Probes:
    """What is known of the models of one process; each is probed once for its files, its loader and the versions."""

    def __init__(self) -> None:
        self._lock = Lock()  # protects the dictionaries
        self._probing: defaultdict[Probed, Lock] = defaultdict(Lock)
        self._known: set[Probed] = set()

    def check(self, name: str, model: Model, loader: Loader, options: str, identity: str) -> None:
        """Probe `model`, unless its like was: of a checkpoint with that `identity`. `name` is told in warnings.

        Raises ModelReferenceError for a model that cannot answer, ModelCrashed for one that has ended meanwhile.
        """
        like = Probed(loader.name, options, identity)
        if like in self._known:  # at each load but the first
            return
        with self._lock:
            probing = self._probing[like]
        with probing:
            if like not in self._known:
                key = key_of(loader, options, identity)
                for doubt in json.loads(remembered(key, lambda: json.dumps(probe(model)))):
                    log.warning("Model '%s' %s", name, doubt)
                self._known.add(like)

    def knows(self, loader: Loader, options: str, identity: str) -> bool:
        """Whether such a model was found to answer, here or in an earlier process."""
        kept = known(key_of(loader, options, identity))
        return Probed(loader.name, options, identity) in self._known or (kept is not None and kept.is_file())


def key_of(loader: Loader, options: str, identity: str) -> str:
    """Changes with the checkpoint's files, the loader's code and options, and the versions of what it uses."""
    made_of = [identity, loader.name, options, _code(loader), *map(_version, PACKAGES)]
    return f"answers-{sha256(chr(10).join(made_of).encode()).hexdigest()[:24]}"


def probe(model: Model) -> list[str]:
    """What is doubtful about the model's answers, as ends of sentences. Raises ModelReferenceError if it gives none."""
    check: Callable[[], None] = getattr(model, "check", lambda: None)
    check()
    short, long = _ask(model, "a text", [SHORT])[0], _ask(model, "a text", [LONG])[0]
    doubts = _apart("two texts together", [short, long], _ask(model, "two texts of different length", [SHORT, LONG]))
    try:
        empty = _ask(model, "an empty text", [""])
        doubts += _apart("an empty text beside another", empty, _ask(model, "an empty text", ["", LONG])[:1])
    except ModelReferenceError as error:
        if not isinstance(error.__cause__, NoTokens):  # which is told to callers who send one
            raise
    over = _ask(model, "a text over its limit", [OVER_LIMIT])[0]
    if all(_distance(short, other) <= ALIKE for other in (long, over)):
        doubts.append("answers the same to every text: its weights may be those of an untrained model.")
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


def _apart(what: str, alone: Sequence[Prediction], together: Sequence[Prediction]) -> list[str]:
    worst = max(map(_distance, alone, together))
    return [] if worst <= IN_COMPANY else [f"answers {what} otherwise than alone: scores differ by {worst:.3g}."]


def _distance(one: Prediction, other: Prediction) -> float:
    """The largest difference of scores, relative to those above 1."""
    if [label for label, _ in one.scores] != [label for label, _ in other.scores]:
        return math.inf
    pairs = zip(one.scores, other.scores, strict=True)
    return max(abs(a - b) / max(1.0, abs(a), abs(b)) for (_, a), (_, b) in pairs)


def _code(loader: Loader) -> str:
    """Changes with the file that the loader is written in."""
    with suppress(OSError, TypeError):  # it was made in no file
        return str(Path(inspect.getfile(type(loader))).stat().st_mtime_ns)
    return ""


@cache
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
