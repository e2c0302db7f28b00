"""The whole contract of a plugin author.

A *loader* decides how a checkpoint becomes a model; a *strategy* decides when a model is in memory.
These are protocols: a plugin needs no import from here, it only has to have the same shape.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self

LoadReason = Literal["request", "preload", "manual", "crash"]
"""Why a model was loaded: a request asked for it, its strategy had it loaded at the start, an operator said so, or the
process of the one before had ended."""
UnloadReason = Literal["request", "capacity", "budget", "expired", "manual", "removed", "crash", "shutdown"]
"""Why a model left memory: its strategy did not keep it beyond its requests, room was needed (number of models or
bytes), its time was up, an operator said so, another version took its place, its own process had ended, or the server
did."""


Json = Any
"""What JSON can hold: None, bool, int, finite float, str, and lists and mappings by str of these."""


class Resident(NamedTuple):
    """A model in memory, as a strategy sees it. Times are seconds on one clock that never goes back."""

    model_id: str
    nbytes: int
    """As last measured."""
    loaded_at: float
    """When its load ended."""
    load_seconds: float
    """What that load took."""
    load_cpu_seconds: float
    load_waiters: int
    """Requests that were queued for the model when its load ended; 0 for a preload."""
    last_used: float
    """When its latest request ended; `loaded_at` before the first."""
    uses: int
    """Requests that were answered since it was loaded."""


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
      Where that process ends, `predict` raises `core.errors.ModelCrashed`, and the next request gets a model anew.
    """

    @property
    def nbytes(self) -> int:
        """Bytes of parameters and buffers."""

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """One prediction for each text, in order. Texts over the model's limit are truncated."""

    def close(self) -> None:
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


class LoadingStrategy(Protocol):
    """When is a model in memory? Mounted as `POST /predict-<name>`.

    A class is constructed as `cls(**options)`; its options are the keyword-only parameters of `__init__`, each with a
    type and a default. All members but `name` may be left out: what is said of each then holds.

    A strategy decides, and does nothing: it has no lock, thread, clock or file. One member is called at a time, and
    `now` never decreases. None may block. Where one raises an error or gives what is no answer, it is as if it had been
    left out; that is logged once, counted in `GET /strategies`, and fails no request.
    """

    name: ClassVar[str]
    route: ClassVar[str]
    """Another path than `/predict-<name>`."""
    shared: bool
    """True. False: each request loads a model of its own, and `keep` and `evict` are not asked."""
    capacity: int | None
    """None: any number of models. At most so many are in memory."""
    memory_budget: int | None
    """None: any number of bytes. At most so many are in memory."""
    pinned: Collection[str]
    """(): models that never expire and are never evicted."""

    grid: ClassVar[Mapping[str, Sequence[Any]]]
    """{}: by option, the values that a plan compares where it names none, as they are written in YAML."""

    def start(self, models: Mapping[str, int]) -> Iterable[str]:
        """(): which models to load before the server is ready. `models` gives the bytes of each by its id, without
        those whose size cannot be read. Raises ValueError for options that cannot be kept.
        """

    def requested(self, model_id: str, now: float) -> None:
        """Nothing. Told of every request that was accepted, whether its model is in memory or not."""

    def loaded(self, model: Resident, reason: LoadReason, now: float) -> None:
        """Nothing. Told of every model that has come into memory."""

    def keep(self, model: Resident, now: float) -> float:
        """Infinite: in how many seconds the model, which nobody uses since now, is freed if that stays so; 0: at once.
        It is not asked again until the model is used again.
        """

    def evict(self, candidates: Collection[Resident], now: float) -> str:
        """The first: which of these goes, since room is needed. The one comes first whose latest use is the longest
        ago; none is pinned. Where all models are in use, the candidates are, too; the one that goes is lent to nobody
        else. Also asked by those who want to know what would go, so that it must change nothing: `unloaded` tells what
        has gone.
        """

    def unloaded(self, model: Resident, reason: UnloadReason, now: float) -> None:
        """Nothing. Told of every model that leaves memory."""

    def explain(self, model: Resident, now: float) -> str:
        """No words: why the model stays, or goes next, in words for `GET /residency`."""

    def state(self) -> Json:
        """None: what it has learned, which the server writes to the file that its setting `state` names."""

    def restore(self, state: Json) -> None:
        """Nothing. Called before `start` with what `state` gave before a restart."""
