"""What casts doubt on a run: one type for each kind of warning."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from .recorded import Recorded


class _OfTrial(Recorded):
    trial: str
    """The label of the trial that it is about."""


class SlowFirstRound(_OfTrial):
    """The first round was slower than the others."""

    kind: Literal["slow first round"] = "slow first round"
    longer: float
    """By how much it exceeds the median round, as a fraction."""


class OutlyingRounds(_OfTrial):
    """Rounds whose mean latency is far from the others'."""

    kind: Literal["outliers"] = "outliers"
    rounds: list[int]
    """From 0."""
    mean_ms: float
    """Of the first of them."""
    median_ms: float
    """Of all rounds' means."""


class OutlyingMemory(_OfTrial):
    """Rounds whose memory between requests is far from the others'."""

    kind: Literal["memory outliers"] = "memory outliers"
    rounds: list[int]
    """From 0."""
    memory: Literal["private", "pss"]
    """Which memory it is."""
    mib: float
    """Of the first of them."""
    median_mib: float
    """Of all rounds."""


class NoisyMachine(_OfTrial):
    """The mean latency differs much from round to round."""

    kind: Literal["noisy machine"] = "noisy machine"
    deviation: float
    """The standard deviation of the rounds' means, as a fraction of their mean."""


class GeneratorBound(_OfTrial):
    """The load generator is near its limit."""

    kind: Literal["generator-bound"] = "generator-bound"
    cores: float
    late_share: float
    """Of the sends."""


class TooFewSamples(_OfTrial):
    """A round has too few answered requests for a p50."""

    kind: Literal["too few samples"] = "too few samples"
    needed: int
    found: int
    """In the round with the fewest."""


class TooFewForTarget(_OfTrial):
    """All rounds together have too few answered requests for a percentile that `slo` names."""

    kind: Literal["too few for target"] = "too few for target"
    percentile: str
    """Such as `p99`."""
    needed: int
    found: int


class Trend(_OfTrial):
    """Latency changes within the trials."""

    kind: Literal["trend"] = "trend"
    change: float
    """From the first half of a trial to the second, as a fraction."""


class ConstantAnswers(_OfTrial):
    """A model gives the same answer to all texts."""

    kind: Literal["constant answers"] = "constant answers"
    model: str
    """The model id."""
    texts: int
    """How many different ones it answered."""
    label: str
    score: float


class DtypeFallback(_OfTrial):
    """The servers computed in another dtype than the experiment asks for."""

    kind: Literal["dtype fallback"] = "dtype fallback"
    asked: str
    used: str


class LoaderFallback(_OfTrial):
    """The servers loaded models as other loaders do."""

    kind: Literal["loader fallback"] = "loader fallback"
    used: list[str]


class OtherLabels(_OfTrial):
    """Too many answers have other labels than those of a trial in another dtype."""

    kind: Literal["labels"] = "labels"
    same: int
    """Answers with the same label."""
    answers: int
    """All that were compared."""
    least_share: float
    """That must be the same."""
    computed_in: str
    """The dtype, and whose rounding, if that makes a difference."""
    other: str
    """The label of the other trial."""
    other_computed_in: str


AnyWarning = (
    SlowFirstRound
    | OutlyingRounds
    | OutlyingMemory
    | NoisyMachine
    | GeneratorBound
    | TooFewSamples
    | TooFewForTarget
    | Trend
    | ConstantAnswers
    | DtypeFallback
    | LoaderFallback
    | OtherLabels
)
WARNINGS: tuple[type[AnyWarning], ...] = get_args(AnyWarning)
RunWarning = Annotated[AnyWarning, Field(discriminator="kind")]


class Disagreement(_OfTrial):
    """A trial answers a text with other scores than another trial does."""

    kind: Literal["disagreement"] = "disagreement"
    text: int
    """From 0."""
    label: str
    """That whose score is furthest from the other answer's."""
    score: float
    other: str
    """The label of the other trial."""
    other_label: str
    other_score: float


class ApartAnswer(_OfTrial):
    """A trial's answer differs from the run's first one to the same text or request, which `answers.jsonl` has."""

    kind: Literal["apart answer"] = "apart answer"
    model: str
    """The model id."""
    text: int
    """From 0."""
    apart: float
    """How far it is from the first one: above 1 they differ."""


AnyDisagreement = Disagreement | ApartAnswer
