"""The whole contract of a plugin author.

A *loader* decides how a checkpoint becomes a model; a *strategy* decides when a model is in memory.
These are protocols: a plugin needs no import from here, it only has to have the same shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, Protocol, Self, TypedDict

Reason = Literal["request", "capacity", "budget", "expired", "manual", "removed", "shutdown", "crash"]
"""Why a model left memory: its one request was answered, room was needed (number of models or
bytes), its time was up, an operator said so, another version took its place, the server ended, or its
own process did."""
LoadReason = Literal["asked", "crash"]
"""Why a model was loaded: its strategy asked for it, or its own process had ended."""


class Score(NamedTuple):
    """A label of a text, and its score: a probability (0 to 1), or any finite number of a regression."""

    label: str
    score: float


class Prediction(Score):
    """The label of a text that has the highest score, and that score.

    `scores` has those of every label, in the order of the model's labels. A loader may leave it out; plain
    (label, score) tuples do as well.
    """

    scores: Sequence[tuple[str, float]]

    def __new__(cls, label: str, score: float, scores: Sequence[tuple[str, float]] = ()) -> Self:
        self = super().__new__(cls, label, score)
        self.scores = scores or [(label, score)]
        return self

    def ranked(self) -> list[tuple[str, float]]:
        """Every label with its score, the best first; of equal ones the model's first."""
        return sorted(self.scores, key=lambda pair: pair[1], reverse=True)

    @classmethod
    def of(cls, prediction: tuple[str, float]) -> Prediction:
        """What a loader's model gave."""
        return prediction if isinstance(prediction, Prediction) else cls(*prediction)


class Model(Protocol):
    """A checkpoint in memory. `predict` may be called from any thread, until `close`.

    It may also have

    - `phases`, a mapping that says where its load's time went: seconds by phase, such as `tokenizer` and `weights`;
      they show up in `Server-Timing`.
    - `loaded_by`, a loader's name, and `dtype`, which say what it used, if that is not what was asked for.
    - `check()`, which raises an error for what keeps the model from answering. It is called once, when the model is
      probed with some texts before it first answers.
    - `own_process = True`, if `predict` only waits for another process: while that hangs, other models are answered.
    - `reloading`, if it can lose its weights and load them anew within `predict`: the host sets it to a function, which
      the model hands its load to, so that this load is timed and counted like any other.
    """

    @property
    def nbytes(self) -> int:
        """Bytes of parameters and buffers."""

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """One prediction for each text, in order. Texts over the model's limit are truncated."""

    def close(self, reason: Reason) -> None:
        """Give the memory back. The model answers no more; a second call does nothing."""


class Loader(Protocol):
    """How a checkpoint becomes a model. Its options are the keyword-only parameters of `__init__`.

    It may also have

    - `prepare(checkpoint)`, called for each checkpoint before the server is ready, for what all loads of its kind have
      in common: imports, above all.
    - `convert(checkpoint)`, for what is written into the cache once. An experiment calls it before its first trial, in
      a process of its own; a load that finds nothing there does it itself.
    """

    name: ClassVar[str]

    def size(self, checkpoint: Path) -> int:
        """Bytes of parameters and buffers in this loader's dtype, from the file's header alone."""

    def load(self, checkpoint: Path) -> Model:
        """Called from many threads at a time; a loader that is not thread-safe serialises itself."""


class Load(Protocol):
    """What a strategy is handed: loads a model by its id, timed and counted by the host.

    Two calls give two models; to load a model once for many callers is the strategy's work.
    """

    @property
    def model_ids(self) -> tuple[str, ...]:
        """Every model that this server may be asked for."""

    def size(self, model_id: str) -> int:
        """`Loader.size` of the model: the unit of every budget."""

    def epoch(self, moment: float) -> float:
        """Seconds since the epoch of a moment of `time.monotonic`: what `explain` tells, whenever the clock was set."""

    def __call__(self, model_id: str) -> Model:
        """Raises `core.errors.LoadFailed`, whose message a caller may see."""


class Explanation(TypedDict, total=False):
    """What a strategy knows of one model; it leaves out what it does not know. Times are seconds since the epoch."""

    in_use: int
    last_use: float
    expires: float
    next_out: bool
    why: str


class LoadingStrategy(Protocol):
    """Who owns a model between requests? Mounted as `POST /predict-<name>`.

    A class is constructed as `cls(load, **options)`; its options are the keyword-only parameters of
    `__init__`, each with a type and a default. An option `memory_budget` is shown as what it may hold.
    None of these methods is required: `start()` is called before the first request, `close()` after the
    last; `preload(model_id)` brings a model into memory, `evict(model_id)` takes it out and says whether it
    is gone; `explain(model_id)` returns an `Explanation`. What is missing is answered with 405.
    """

    name: ClassVar[str]
    shares: bool
    """Whether requests that are answered together may use one acquire. `True` when left out."""

    def acquire(self, model_id: str) -> AbstractContextManager[Model]:
        """Lend the model out: what stands before `yield` is loading policy, after it freeing policy.

        Called from worker threads, many at a time; it may block.
        """
