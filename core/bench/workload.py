"""The `workload:` section of an experiment: its clients or arrivals, and the popularity of models."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, Discriminator, Field, Tag, model_validator

from ..config.choices import STRICT, Duration, ModelId
from ..config.quantities import MOST_PER_SECOND, parse_rate

MAX_REQUESTS = 1_000_000  # in one trial
MAX_CLIENTS = 1000
_KINDS = ("closed", "open", "trace")
Requests = Annotated[int, Field(ge=1, le=MAX_REQUESTS)]
Length = Annotated[Duration, Field(gt=0, le=7 * 24 * 3600)]
Rate = Annotated[float, BeforeValidator(parse_rate), Field(gt=0, le=MOST_PER_SECOND)]


def _one_of(words: tuple[str, ...], keys: tuple[str, ...], remedy: str) -> BeforeValidator:
    """A validator that accepts one of the words, or a mapping with one of the keys.

    Its error is one sentence, while pydantic would report an error for each part of a union.
    """

    def check(value: Any) -> Any:
        one_key = isinstance(value, dict) and len(value) == 1 and set(value) <= set(keys)
        if value in words or one_key or isinstance(value, BaseModel):
            return value
        raise ValueError(f"must be {remedy}")

    return BeforeValidator(check)


class Gamma(BaseModel):
    """Gamma distributed gaps between arrivals, whose squared coefficient of variation is `gamma`.

    1 is a Poisson process, 0 would be a constant rate, and above 1 arrivals come in bursts.
    """

    model_config = STRICT

    gamma: Annotated[float, Field(gt=0, le=1000)]
    """The squared coefficient of variation."""


class Zipf(BaseModel):
    """A popularity proportional to k^-zipf for the k-th model in the experiment's order."""

    model_config = STRICT

    zipf: Annotated[float, Field(ge=0, le=20)]
    """The exponent."""


class Shares(BaseModel):
    """The share of each model in the requests."""

    model_config = STRICT

    shares: Annotated[dict[ModelId, Annotated[float, Field(ge=0, le=1)]], Field(min_length=1)]
    """By model id; together 1."""

    @model_validator(mode="after")
    def _check_sum(self) -> Self:
        if abs(sum(self.shares.values()) - 1) > 1e-6:
            raise ValueError(f"shares must add up to 1, not to {sum(self.shares.values()):g}")
        return self


Arrivals = Annotated[
    Literal["poisson", "constant"] | Gamma,
    _one_of(("poisson", "constant"), ("gamma",), "poisson, constant, or {gamma: <burstiness>}"),
]
Popularity = Annotated[
    Annotated[Literal["uniform"], Tag("word")] | Annotated[Zipf, Tag("zipf")] | Annotated[Shares, Tag("shares")],
    Discriminator(lambda value: "word" if isinstance(value, str) else next(iter(dict(value)))),
    _one_of(("uniform",), ("zipf", "shares"), "uniform, {zipf: <exponent>}, or {shares: {<model>: <share>, …}}"),
]


class _Bounded(BaseModel):
    """Traffic that ends after a time, or after a number of requests."""

    model_config = STRICT

    duration: Length | None = None
    """How long the trial takes, at most a week. Give either this or `requests`."""
    requests: Requests | None = None
    """How many requests the trial has."""

    @model_validator(mode="after")
    def _check_end(self) -> Self:
        if (self.duration is None) == (self.requests is None):
            raise ValueError("must have either a 'duration' or a number of 'requests'")
        return self


class Closed(_Bounded):
    """Clients that each wait for an answer before the next request."""

    clients: Annotated[int, Field(ge=1, le=MAX_CLIENTS)]
    """How many clients there are. Each waits for its answer before it sends again."""
    popularity: Popularity | None = None
    """How often each model is requested; without it, uniformly."""


class Open(_Bounded):
    """Requests that arrive at a rate, however long the answers take."""

    rate: Rate
    """Requests on average, such as `20/s`, `90/min` or `1200/h`."""
    arrivals: Arrivals = "poisson"
    """The times between requests: `poisson`, `constant` or `{gamma: b}`."""
    popularity: Popularity = "uniform"
    """How often each model is requested: `uniform`, `{zipf: s}` or `{shares: {a: 0.7, b: 0.3}}`."""

    @model_validator(mode="after")
    def _check_count(self) -> Self:
        if self.duration is not None and not 1 <= self.duration * self.rate <= MAX_REQUESTS:
            raise ValueError(f"rate and duration must make 1 to {MAX_REQUESTS} requests in a trial")
        return self


class Columns(BaseModel):
    """The names of a trace's columns, or of the keys of its lines."""

    model_config = STRICT

    time: Annotated[str, Field(min_length=1)] = "time"
    """The column of the times."""
    model: Annotated[str, Field(min_length=1)] | None = None
    """The column of the model ids. Without it, `model` if the file has it."""


class TraceChoice(BaseModel):
    """Recorded arrivals. `popularity` draws the models if the file has none, or if it is given."""

    model_config = STRICT

    file: Annotated[str, Field(min_length=1)]
    """The path of the trace."""
    columns: Columns = Columns()
    """The names of the columns, such as `{time: TIMESTAMP}`, or of the keys of its lines."""
    unit: Literal["s", "ms", "us", "ns"] | None = None
    """The unit of times that are numbers: `s`, `ms`, `us` or `ns`. Without it they are seconds. ISO times are read as
    well.
    """
    window: Annotated[list[Duration], Field(min_length=2, max_length=2)] | None = None
    """Cuts out a part, counted from the first arrival, such as `[0s, 10min]`."""
    thin: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Keeps each arrival with this probability, and leaves the times as they are."""
    speed: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """Divides the times by this number."""
    popularity: Popularity | None = None
    """Draws the models if the file names none, or in place of those that it names."""

    @model_validator(mode="after")
    def _check_window(self) -> Self:
        if self.window is not None and not self.window[0] < self.window[1]:
            raise ValueError("the window must end after it begins, such as [0s, 600s]")
        return self


class Workload(BaseModel):
    """Exactly one kind of traffic."""

    model_config = STRICT

    closed: Closed | None = None
    """Requests come when a client has its answer."""
    open: Open | None = None
    """Requests come at a rate, however long the answers take."""
    trace: TraceChoice | None = None
    """Requests come at recorded times."""

    @model_validator(mode="before")
    @classmethod
    def _check_kind(cls, value: Any) -> Any:
        chosen = {key: kind for key, kind in value.items() if kind is not None} if isinstance(value, dict) else {}
        if len(chosen) != 1 or (set(value) - set(_KINDS)):
            raise ValueError(f"must have exactly one of the keys {', '.join(_KINDS)}")
        return chosen

    @property
    def states_a_rate(self) -> bool:
        """Whether the traffic has its own request rate; in a closed loop the answers determine it."""
        return self.closed is None

    @property
    def popularity(self) -> Literal["uniform"] | Zipf | Shares:
        """The popularity of the models, if a trace does not name them."""
        chosen = self.closed or self.open or self.trace
        return (chosen.popularity if chosen else None) or "uniform"
