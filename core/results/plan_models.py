"""What a plan finds of several models together: quantiles over them, which cost the most, how much memory pays off.

Money is in the currency of the prices, and of a month where nothing else is said.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .recorded import Recorded

Timeout = float | Literal["forever"]
"""Seconds for which an idle model is kept."""


class Quantiles(Recorded):
    """Over models; each one is the value of a model."""

    least: float
    lower_quartile: float
    median: float
    upper_quartile: float
    most: float


class TimeoutQuantiles(Recorded):
    """Over models; each one is the value of a model."""

    least: Timeout
    lower_quartile: Timeout
    median: Timeout
    upper_quartile: Timeout
    most: Timeout


class TheoryOverModels(Recorded):
    """What the theory of keep-alive says of all models under one loader."""

    kind: Literal["theory over models"] = "theory over models"
    loader: str
    models: int
    mib: Quantiles
    """Charged memory."""
    timeout_s: TimeoutQuantiles
    """k/m, under which a model costs at most twice the clairvoyant minimum."""
    break_even_per_hour: Quantiles | None
    """Requests above which keeping a model pays, of those whose loads cost something; None if none do."""
    requested: int
    """Models with a request."""
    best_timeout_s: TimeoutQuantiles | None
    """The best one on the gaps of each model that is requested; None if none is."""
    always: int
    """Models that cost the least if they are kept all the time."""
    never: int
    """Requested models that cost the least if they are freed after each request."""


class ModelCosts(Recorded):
    """What a model costs under a setting."""

    model: str
    requests: int
    loads: int
    holding: float
    """0 unless memory is paid for while it is held."""
    cold_starts: float
    share: float
    """Of what all models cost."""


class CostliestModels(Recorded):
    """The models that cost the most under the recommended setting."""

    kind: Literal["costliest models"] = "costliest models"
    label: str
    models: int
    """How many there are in all."""
    total: float
    """What all of them cost: holding and cold starts."""
    named: list[ModelCosts]


class ModelSaving(Recorded):
    """What another timeout of one model saves against the recommended setting."""

    model: str
    saves: float


class _ModelsTo(Recorded):
    """Models that should be treated alike, whatever the recommended setting does with the others."""

    label: str
    """The recommended setting."""
    named: list[ModelSaving]
    """Those that save the most."""
    rest: int
    """Further models of which the same is true."""
    saves: float
    """What all of them save, named or not, compared to the recommended setting."""


class ModelsToPin(_ModelsTo):
    """Models that cost the least if they are kept all the time."""

    kind: Literal["models to pin"] = "models to pin"


class ModelsToDrop(_ModelsTo):
    """Models that cost the least if they are freed after each request."""

    kind: Literal["models to drop"] = "models to drop"


class MemoryPoint(Recorded):
    """A budget of memory that is held all the time, and the cold starts that remain with it."""

    budget_mib: float
    """Of the weights of models, as a memory budget counts them."""
    loads: int
    cold_starts: float
    holding: float


class MemoryStep(Recorded):
    """What one step of memory more, or less, changes."""

    cold_starts: float
    """By how much their cost falls with more memory, or rises with less."""
    holding: float
    """By how much it rises with more memory, or falls with less."""


class MemoryCurve(Recorded):
    """What cold starts cost with each budget, if the least recently used model is evicted and requests end at once."""

    kind: Literal["memory curve"] = "memory curve"
    step_mib: float
    """Between two budgets."""
    points: list[MemoryPoint]
    """From room for the largest model to room for all that are requested."""
    pays_until_mib: float
    """The budget with the least sum of both costs."""
    more: MemoryStep | None
    """None if all models fit."""
    less: MemoryStep | None
    """None if the largest model would not fit."""


class Trade(Recorded):
    """The recommended setting costs less than a setting of the same strategy, and has more cold starts."""

    kind: Literal["trade"] = "trade"
    label: str
    sibling: str
    """The cheapest setting of the same strategy and loader that has fewer cold starts."""
    saves_share: float
    """Of the avoidable cost of the sibling."""
    cold_share: float
    sibling_cold_share: float
    cold_start: float
    """The cost of one on average, over the loads of the recommended setting."""
    cold_start_ms: float
    """How much longer its caller waits, on average."""


ModelsFinding = Annotated[CostliestModels | ModelsToPin | ModelsToDrop | MemoryCurve, Field(discriminator="kind")]
