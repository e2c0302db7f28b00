"""The card: what to use."""

from __future__ import annotations

from typing import Literal

from .recorded import Recorded


class Flip(Recorded):
    """Where the answer changes."""

    what: Literal["rate", "memory price", "latency target"]
    at: float
    unit: str
    to: str
    """The label of the trial that is then the better one."""
    sentence: str


class Settings(Recorded):
    """Settings to paste."""

    label: str
    where: str
    """The rates for which they are recommended."""
    yaml: str


class Bursts(Recorded):
    """How bursts change the first break-even rate; rates are requests an hour."""

    at: float
    longer_ms: float
    alone_ms: float
    flip: float | None
    alone_flip: float | None
    sentence: str


class Card(Recorded):
    """What is recommended, and why."""

    recommended: str | None
    runner_up: str | None
    sentences: list[str]
    flips: list[Flip]
    settings: list[Settings]
    settles: str | None
    bursts: Bursts | None = None
