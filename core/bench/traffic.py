"""The requests of a workload: their times, models and texts, which are the same for every trial of a round."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..config.strict_yaml import Document
from ..errors import FileError
from ..system.files import resolve_path
from .trace_file import read_trace
from .workload import MAX_REQUESTS, Gamma, Open, Shares, TraceChoice, Workload, Zipf

SHOWN = 5  # shares that a description lists
CHUNK = 1024  # requests of a closed loop that are drawn at a time
Floats = NDArray[np.float64]


class Request(NamedTuple):
    """A request to send: a model id, and the index of a text."""

    model: str
    text: int


class Arrivals(NamedTuple):
    """Times in seconds since the start of the workload, ascending, and the model ids if a trace has them."""

    at: Floats
    models: tuple[str, ...] | None


@dataclass(frozen=True)
class Traffic:
    """A workload over models and texts. Every draw is seeded by the experiment's seed and the round's number."""

    workload: Workload
    models: tuple[str, ...]
    texts: int
    seed: int
    trace: Arrivals | None = None

    @property
    def requests(self) -> int | None:
        """The approximate number of requests in a trial; None if it depends on the answers."""
        open_ = self.workload.open
        if self.trace is not None:
            return len(self.trace.at)
        if open_ is not None and open_.duration is not None:
            return round(open_.rate * open_.duration)
        bounded = open_ or self.workload.closed
        return bounded.requests if bounded else None

    @property
    def seconds(self) -> float | None:
        """The approximate duration of a trial in seconds; None if it depends on the answers."""
        open_, closed = self.workload.open, self.workload.closed
        if self.trace is not None:
            return float(self.trace.at[-1])
        if open_ is not None:
            return open_.duration or (open_.requests or 0) / open_.rate
        return closed.duration if closed else None

    def __str__(self) -> str:
        """A phrase that describes the traffic."""
        closed, open_, trace = self.workload.closed, self.workload.open, self.workload.trace
        if closed:
            words = f"closed, {closed.clients} clients that wait for their answers"
        elif open_:
            times = f"gamma {open_.arrivals.gamma:g}" if isinstance(open_.arrivals, Gamma) else open_.arrivals
            words = f"open, {times} arrivals at {open_.rate:g}/s"
        else:
            words = f"the arrivals of {trace and trace.file}"
        named = self.trace is not None and self.trace.models is not None
        all_shares = model_shares(self.workload.popularity, self.models)
        shares = ", ".join(f"{share:.0%}" for share in all_shares[:SHOWN]) + (", …" if len(all_shares) > SHOWN else "")
        return words if len(self.models) == 1 or named else f"{words}, models in shares of {shares}"

    def arrivals(self, number: int) -> list[tuple[float, Request]]:
        """The (seconds since the start, request) pairs of an open loop or a trace in round `number`, from 0."""
        if self.trace is not None:
            at, models = self.trace
        else:
            assert self.workload.open is not None
            at, models = arrival_times(self.workload.open, _random(self.seed, number, "times")), None
        requests = self.draw_requests(number)
        drawn = [next(requests) for _ in at]
        if models is not None:
            drawn = [request._replace(model=model) for request, model in zip(drawn, models, strict=True)]
        return list(zip(at.tolist(), drawn, strict=True))

    def draw_requests(self, number: int) -> Iterator[Request]:
        """An endless stream of independent requests: models drawn by their popularity, texts uniformly."""
        models, texts = _random(self.seed, number, "models"), _random(self.seed, number, "texts")
        shares = model_shares(self.workload.popularity, self.models)
        while True:
            chosen = models.choice(len(self.models), CHUNK, p=shares).tolist()
            for model, text in zip(chosen, texts.integers(self.texts, size=CHUNK).tolist(), strict=True):
                yield Request(self.models[model], text)


def resolve_traffic(
    document: Document, workload: Workload | None, models: Sequence[str] | None, texts: int, seed: int, folder: Path
) -> Traffic | None:
    """The traffic of the workload, with its trace read and its path absolute; None without one. Without `models`, they
    are those that the arrivals of its trace name, sorted. Raises YamlError.
    """
    if workload is None:
        return None
    popularity, trace = workload.popularity, workload.trace
    if isinstance(popularity, Shares) and models is not None and set(popularity.shares) != set(models):
        [kind] = workload.model_fields_set
        where = ("workload", kind, "popularity", "shares")
        raise document.error(where, f"must give the share of each model, 0 or more: {', '.join(models)}.")
    arrivals = None
    if trace is not None:
        try:
            path = resolve_path(trace.file, folder)
            arrivals = read_arrivals(trace, path, models, seed)
        except FileError as error:
            raise document.error(("workload", "trace", "file"), str(error)) from error
        workload = Workload(trace=trace.model_copy(update={"file": str(path)}))
    if models is None:
        assert arrivals is not None
        models = sorted(set(arrivals.models or ()))
    return Traffic(workload, tuple(models), texts, seed, arrivals)


def model_shares(popularity: str | Zipf | Shares, models: Sequence[str]) -> Floats:
    """The share of each model; their sum is 1."""
    if isinstance(popularity, Shares):
        weights = np.array([popularity.shares[model] for model in models])
    else:
        exponent = popularity.zipf if isinstance(popularity, Zipf) else 0.0
        weights = np.arange(1, len(models) + 1, dtype=float) ** -exponent
    return np.asarray(weights / weights.sum())


def arrival_times(choice: Open, draws: np.random.Generator) -> Floats:
    """Times of arrivals in seconds, ascending.

    The gaps are constant, exponential (Poisson), or gamma distributed with shape 1/b and scale b/rate, so that their
    mean is 1/rate and their squared coefficient of variation is b, the burstiness.

    With a duration, the process is stationary from the start, so that rate × duration requests arrive on average. With
    a number N of requests, it begins with a complete gap, so that they take N / rate seconds on average.
    """
    burstiness = choice.arrivals.gamma if isinstance(choice.arrivals, Gamma) else 1.0
    shape, scale = 1 / burstiness, burstiness / choice.rate
    count = choice.requests or round(choice.rate * (choice.duration or 0))
    if choice.arrivals == "constant":
        return np.arange(count) / choice.rate
    if choice.duration is None:
        return np.cumsum(draws.gamma(shape, scale, count))
    # The start falls into a gap with a probability proportional to its length, which adds 1 to the shape, and at a
    # uniform position within that gap.
    drawn = [np.array([draws.random() * draws.gamma(shape + 1, scale)])]
    while drawn[-1][-1] < choice.duration:
        drawn.append(drawn[-1][-1] + np.cumsum(draws.gamma(shape, scale, max(count, 16))))
    at = np.concatenate(drawn)
    return np.asarray(at[at < choice.duration])


def read_arrivals(choice: TraceChoice, path: Path, models: Sequence[str] | None, seed: int) -> Arrivals:
    """The arrivals of the trace that remain after `window` and `thin`. They are the same in every round. Without
    `models`, the trace has to name some.

    Raises FileError for an unusable file, an unknown model, no arrivals, or too many.
    """
    rows = read_trace(path, choice)
    begin, end = choice.window or (0.0, float("inf"))
    first = rows[0].time
    rows = [row for row in rows if begin <= row.time - first < end]
    named = choice.popularity is None and bool(rows) and rows[0].model is not None
    if rows and models is None and not named:
        raise FileError(f"{path}: names no models; name their column under 'columns', such as columns: {{model: app}}.")
    if named and models is not None:
        for row in rows:
            if row.model not in models:
                raise FileError(f"{path}:{row.line}: there is no model '{row.model}'; models: {', '.join(models)}.")
    if choice.thin < 1:
        kept = _random(seed, "thin").random(len(rows)) < choice.thin
        rows = [row for row, keep in zip(rows, kept, strict=True) if keep]
    if not 1 <= len(rows) <= MAX_REQUESTS:
        raise FileError(f"{path}: 'window' and 'thin' must leave 1 to {MAX_REQUESTS} arrivals, but leave {len(rows)}.")
    at = (np.array([row.time for row in rows]) - first - begin) / choice.speed
    return Arrivals(at, tuple(str(row.model) for row in rows) if named else None)


def _random(*seed: object) -> np.random.Generator:
    return np.random.default_rng(list("/".join(map(str, seed)).encode()))
