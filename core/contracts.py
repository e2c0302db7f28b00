"""The contracts that a plugin implements.

A *loader* decides how a checkpoint becomes a model; a *strategy* decides when a model is in memory. These are
protocols: a plugin imports nothing from here, it only has the same members.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self

LoadReason = Literal["request", "preload", "manual", "crash"]
"""Why a model was loaded.

- `request`: for a request.
- `preload`: by its strategy, before the server was ready.
- `manual`: by an operator.
- `crash`: for a request, after the process of the model had ended.
"""
UnloadReason = Literal["request", "capacity", "budget", "expired", "manual", "removed", "crash", "shutdown"]
"""Why a model was unloaded.

- `request`: its last request had ended, and its strategy did not keep it.
- `capacity`, `budget`: it was evicted, because the number of models, or of bytes, was at its limit.
- `expired`: it was idle for longer than its strategy keeps it.
- `manual`: by an operator.
- `removed`: another version replaced it, or it is no longer served.
- `crash`: its process had ended.
- `shutdown`: the server ended.
"""

Json = Any
"""A value that JSON can hold: None, bool, int, finite float, str, and lists and mappings by str of these."""


class Resident(NamedTuple):
    """A model in memory, as a strategy sees it. Times are seconds on one clock that never goes back."""

    model_id: str
    nbytes: int
    """As last measured."""
    loaded_at: float
    """When its load ended."""
    load_seconds: float
    """How long that load took."""
    load_cpu_seconds: float
    load_waiters: int
    """How many requests were queued for the model when its load ended; 0 for a preload."""
    last_used: float
    """When its latest request ended; `loaded_at` before the first."""
    uses: int
    """How many requests it has answered since it was loaded."""


class Score(NamedTuple):
    """A label of a text, and its score: a probability (0 to 1), or any finite number for a regression."""

    label: str
    score: float


class Prediction(Score):
    """The label of a text with the highest score, and that score.

    `scores` has every label with its score, in the order of the model's labels. A loader may leave it out, or return
    plain (label, score) tuples.
    """

    scores: Sequence[tuple[str, float]]

    def __new__(cls, label: str, score: float, scores: Sequence[tuple[str, float]] = ()) -> Self:
        self = super().__new__(cls, label, score)
        self.scores = scores or [(label, score)]
        return self

    def ranked(self) -> list[tuple[str, float]]:
        """Every label with its score, the best first. Equal scores stay in the model's order."""
        return sorted(self.scores, key=lambda pair: pair[1], reverse=True)

    @classmethod
    def of(cls, prediction: tuple[str, float]) -> Prediction:
        """The result of a loader's model as a Prediction."""
        return prediction if isinstance(prediction, Prediction) else cls(*prediction)


class Model(Protocol):
    """A checkpoint in memory. `predict` may be called from any thread, until `close`.

    It may also have

    - `phases`, a mapping of the seconds of its load by phase, such as `tokenizer` and `weights`. They appear in
      `Server-Timing`.
    - `loaded_by`, the name of a loader, and `dtype`: what the load used, if that differs from what was configured.
    - `check()`, which raises an error if the model cannot answer. It is called once, when the model is probed with
      some texts before its first answer.
    - `task`, the name of a row in the table of tasks, which says what items and results are. Without it, the model
      classifies texts.
    - `also`, a mapping from the names of further tasks to functions like `predict`.
    - `own_process = True`, if `predict` only waits for another process. If that process hangs, other models are still
      answered. If it has ended, `predict` raises `core.errors.ModelCrashed`, and the model is loaded again.
    """

    @property
    def nbytes(self) -> int:
        """Bytes of parameters and buffers."""

    def predict(self, items: Sequence[Any]) -> Sequence[Any]:
        """One result for each item, in order. Texts over the model's limit are truncated."""

    def close(self) -> None:
        """Free the memory. `predict` is not called afterwards. A second call does nothing."""


class Engine(Protocol):
    """A model that is a server of its own: requests are forwarded to `url` while it is leased."""

    url: str
    """Such as `http://127.0.0.1:5800`."""

    @property
    def nbytes(self) -> int:
        """Bytes in memory, as last measured."""

    def close(self) -> None:
        """End the server, and wait until its memory is freed. A second call does nothing."""


class Loader(Protocol):
    """How a checkpoint becomes a model. Its options are the keyword-only parameters of `__init__`.

    It may also have

    - `prepare(checkpoint)`, called before the server is ready, for one checkpoint of each kind. It does what all loads
      of that kind share, such as imports.
    - `convert(checkpoint)`, which writes a conversion to the cache. An experiment calls it before its first trial, in a
      process of its own. A load that finds no conversion makes it itself.
    - `tasks(checkpoint)`, the names of the tasks that its model of this checkpoint has, first the main one. Without it,
      they follow from config.json.
    """

    name: ClassVar[str]

    def size(self, checkpoint: Path) -> int:
        """Bytes of parameters and buffers in this loader's dtype, from the file's header alone."""

    def load(self, checkpoint: Path) -> Model:
        """The model. Called from many threads at a time, so a loader that is not thread-safe needs a lock."""


class LoadingStrategy(Protocol):
    """When a model is in memory. Mounted as `POST /predict-<name>`.

    A strategy is constructed as `cls(**options)`. Its options are the keyword-only parameters of `__init__`, each with
    a type and a default. All members but `name` may be left out; each docstring begins with the default.

    A strategy only decides: it has no lock, thread, clock or file. One member is called at a time, and `now` never
    decreases. A member must not block. If it raises an error or returns a wrong value, the default is used. That is
    logged once, counted in `GET /strategies`, and fails no request.
    """

    name: ClassVar[str]
    route: ClassVar[str]
    """`/predict-<name>`. The path under which the strategy is mounted."""
    shared: bool
    """True. If False, each request loads a model of its own, and `keep` and `evict` are not called."""
    capacity: int | None
    """None: no limit. How many models may be in memory."""
    memory_budget: int | None
    """None: no limit. How many bytes of models may be in memory."""
    pinned: Collection[str]
    """(). The ids of models that never expire and are never evicted."""

    grid: ClassVar[Mapping[str, Sequence[Any]]]
    """{}. The values that a plan compares by default, by option, as they are written in YAML."""

    def start(self, models: Mapping[str, int]) -> Iterable[str]:
        """(). Returns the ids of the models to load before the server is ready.

        `models` has the bytes of each model by its id, without models whose size cannot be read. Raises ValueError for
        options that cannot be kept.
        """

    def requested(self, model_id: str, now: float) -> None:
        """Does nothing. Called for every request that has a queue slot, whether its model is in memory or not."""

    def loaded(self, model: Resident, reason: LoadReason, now: float) -> None:
        """Does nothing. Called for every model that was loaded."""

    def keep(self, model: Resident, now: float) -> float:
        """Infinite. Returns after how many seconds the model, which has just become idle, is freed if it stays idle; 0:
        at once. It is called again only after the model has been used again.
        """

    def evict(self, candidates: Collection[Resident], now: float) -> str:
        """The first. Returns the id of the candidate to evict.

        The least recently used candidate is the first; none is pinned. If all models are in use, so are the candidates;
        the model that is named then gets no new lease, and is freed when its last lease ends. `evict` is also called to
        show what would be evicted next, so it must change nothing. `unloaded` reports what was evicted.
        """

    def unloaded(self, model: Resident, reason: UnloadReason, now: float) -> None:
        """Does nothing. Called for every model that was unloaded."""

    def explain(self, model: Resident, now: float) -> str:
        """Empty. Returns why the model stays, or is evicted next, as a sentence for `GET /residency`."""

    def state(self) -> Json:
        """None. Returns what the strategy has learned, which the server writes to the file of its setting `state`."""

    def restore(self, state: Json) -> None:
        """Does nothing. Called before `start` with what `state` returned before a restart."""
