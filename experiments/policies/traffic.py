"""Requests to many models of different sizes: drawn, always the same for one name, or read from files."""

from __future__ import annotations

import csv
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.errors import FileError

DAYS = 3.0
DAY, HOUR, MINUTE = 86_400.0, 3600.0, 60.0
MIB = (40.0, 1300.0)  # the smallest and the largest model that is drawn
Floats = NDArray[np.float64]
Arrivals = tuple[Floats, NDArray[np.int64]]  # seconds, and the number of the model that each requests; in any order


class Traffic(NamedTuple):
    """Requests, and the models that they are for."""

    name: str
    at: list[float]
    """Seconds, ascending."""
    asked: list[str]
    """The model that each requests."""
    mib: Mapping[str, float]
    """The size of each model that is requested."""


def zipf(random: np.random.Generator, days: float) -> Arrivals:
    """200 models, popular by Zipf's law, in a Poisson process of 33,000 requests a day."""
    at = _poisson(random, days * DAY, 33_000 / DAY)
    return at, random.choice(200, len(at), p=_popularity(200))


def diurnal(random: np.random.Generator, days: float) -> Arrivals:
    """The same, but the rate by day is nine times that by night, and each model's gaps vary (CV 3)."""
    fine = np.linspace(0, days, 2000)
    passed = fine - 0.8 * (np.sin(2 * np.pi * fine)) / (2 * np.pi)  # at a rate of 1 - 0.8 cos, lowest at midnight
    means = days * 33_000 * _popularity(200)
    drawn = [np.interp(_gamma(random, passed[-1], passed[-1] / mean, 3.0), passed, fine) * DAY for mean in means]
    return _together(drawn)


def bursty(random: np.random.Generator, days: float) -> Arrivals:
    """150 models by Zipf's law; requests come in bursts of 20 on average, 2 s apart, 1,700 bursts a day."""
    begins = _poisson(random, days * DAY, 1700 / DAY)
    asked = random.choice(150, len(begins), p=_popularity(150))
    sizes = random.geometric(1 / 20, len(begins))
    bursts = [begin + np.cumsum(random.exponential(2.0, size)) for begin, size in zip(begins, sizes, strict=True)]
    return np.concatenate(bursts), np.repeat(asked, sizes)


def drifting(random: np.random.Generator, days: float) -> Arrivals:
    """As zipf, but every 2 h the models change their popularity at random."""
    at, ranks = zipf(random, days)
    orders = np.array([random.permutation(200) for _ in range(int(days * 12) + 1)])
    return at, orders[(at // (2 * HOUR)).astype(int), ranks]


def looping(random: np.random.Generator, days: float) -> Arrivals:
    """200 models: every second request goes on in a loop over all of them, the others ask for a tenth at random."""
    at = _poisson(random, days * DAY, 33_000 / DAY)
    asked = random.integers(20, size=len(at))
    asked[::2] = np.arange(len(asked[::2])) % 200
    return at, asked


def timers(random: np.random.Generator, days: float) -> Arrivals:
    """150 models, each in a period of its own between 1 min and 12 h; each gap varies by 5 %."""
    periods = np.exp(random.uniform(np.log(MINUTE), np.log(12 * HOUR), 150))
    return _together([_every(random, days * DAY, period) for period in periods])


def few(random: np.random.Generator, days: float) -> Arrivals:
    """Five models in Poisson processes, on average 1, 4, 16, 64 and 256 min between requests."""
    return _together([_poisson(random, days * DAY, 1 / (MINUTE * 4**each)) for each in range(5)])


def sparse(random: np.random.Generator, days: float) -> Arrivals:
    """300 models by Zipf's law, 1,000 requests a day in all."""
    at = _poisson(random, days * DAY, 1000 / DAY)
    return at, random.choice(300, len(at), p=_popularity(300))


def strangers(random: np.random.Generator, days: float) -> Arrivals:
    """20 popular models; every second request is for a model that is never requested again; 4,000 a day."""
    at = _poisson(random, days * DAY, 4000 / DAY)
    asked = random.integers(20, size=len(at))
    asked[::2] = 20 + np.arange(len(asked[::2]))
    return at, asked


def flips(random: np.random.Generator, days: float) -> Arrivals:
    """100 models, each in turns one minute between requests for 1 h, and two hours for 12 h, on average."""
    return _together([_flipping(random, days * DAY) for _ in range(100)])


Draw = Callable[[np.random.Generator, float], Arrivals]
DRAWN: Mapping[str, Draw] = {
    each.__name__: each for each in (zipf, diurnal, bursty, drifting, looping, timers, few, sparse, strangers, flips)
}


def draw(name: str, days: float = DAYS, seed: int = 0) -> Traffic:
    """The traffic of that name. Sizes are log-uniform."""
    random = np.random.default_rng([seed, zlib.crc32(name.encode())])
    at, asked = DRAWN[name](random, days)
    order = np.argsort(at, kind="stable")
    sizes = np.exp(random.uniform(np.log(MIB[0]), np.log(MIB[1]), int(asked.max(initial=0)) + 1))
    mib = {f"m{each}": float(sizes[each]) for each in np.unique(asked)}
    return Traffic(name, at[order].tolist(), [f"m{each}" for each in asked[order]], mib)


def read(name: str, requests: Path, sizes: Path, column: str = "mib") -> Traffic:
    """The traffic of a CSV file with `time` (s) and `model`, and of one with `model` and its size in MiB.

    Raises FileError.
    """
    mib = dict(zip(_column(sizes, "model"), _numbers(sizes, column), strict=True))
    rows = sorted(zip(_numbers(requests, "time"), _column(requests, "model"), strict=True), key=lambda row: row[0])
    asked = [model for _, model in rows]
    if unknown := set(asked) - mib.keys():
        raise FileError(f"{sizes}: has no size of the model '{min(unknown)}', which {requests} requests; add a row.")
    if not rows:
        raise FileError(f"{requests}: has no request.")
    return Traffic(name, [at for at, _ in rows], asked, {model: mib[model] for model in sorted(set(asked))})


def _poisson(random: np.random.Generator, seconds: float, rate: float) -> Floats:
    return np.sort(random.uniform(0, seconds, random.poisson(seconds * rate)))


def _popularity(models: int) -> Floats:
    """By Zipf's law, the most popular first."""
    weights = 1 / np.arange(1, models + 1)
    return np.asarray(weights / weights.sum())


def _gamma(random: np.random.Generator, end: float, mean: float, cv: float) -> Floats:
    """Times until `end`, with gaps of that mean and coefficient of variation."""
    return _renewal(random, end, mean, lambda count: random.gamma(cv**-2, mean * cv**2, count))


def _every(random: np.random.Generator, end: float, period: float) -> Floats:
    """Times until `end`, a period apart, more or less."""
    return _renewal(random, end, period, lambda count: random.normal(period, period / 20, count))


def _renewal(random: np.random.Generator, end: float, mean: float, gaps: Callable[[int], Floats]) -> Floats:
    """Times until `end` with these gaps, the first of them begun before."""
    at = np.cumsum(gaps(int(2 * end / mean) + 200)) - random.uniform(0, mean)
    return at[(at >= 0) & (at < end)]


def _flipping(random: np.random.Generator, end: float) -> Floats:
    at, now = [], random.uniform(-13 * HOUR, 0)
    while now < end:
        for mean, length in ((MINUTE, HOUR), (2 * HOUR, 12 * HOUR)):
            at.append(now + _poisson(random, length, 1 / mean))
            now += length
    times = np.concatenate(at)
    return times[(times >= 0) & (times < end)]


def _together(drawn: Iterable[Floats]) -> Arrivals:
    """The times of all models."""
    times = list(drawn)
    return np.concatenate(times), np.repeat(np.arange(len(times)), [len(each) for each in times])


def _column(path: Path, name: str) -> list[str]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            if name not in (rows.fieldnames or ()):
                raise FileError(
                    f"{path}: its first line has no column '{name}', but {', '.join(rows.fieldnames or ())}."
                )
            return [row[name] or "" for row in rows]
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}.") from error


def _numbers(path: Path, name: str) -> list[float]:
    numbers = []
    for line, text in enumerate(_column(path, name), start=2):
        try:
            number = float(text)
        except ValueError:
            number = -1.0
        if not 0 <= number < np.inf:
            raise FileError(f"{path}:{line}: '{name}' must be a number from 0, not '{text}'.")
        numbers.append(number)
    return numbers
