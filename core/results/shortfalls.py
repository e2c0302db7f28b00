"""Why a target is not known to be met: one type for each kind of sentence."""

from __future__ import annotations

from typing import Literal

from .figures import Interval
from .recorded import Recorded


class TrialTarget(Recorded):
    """A target that a trial should meet."""

    trial: str
    """The trial's label."""
    percentile: str
    target_ms: float


class _OfTarget(Recorded):
    target: TrialTarget


class NoRequests(_OfTarget):
    """No finished round has a request."""

    kind: Literal["no requests"] = "no requests"


class TargetMissed(_OfTarget):
    """A typical process misses it."""

    kind: Literal["target missed"] = "target missed"
    share_within: float
    """Of the requests."""


class ProcessWithoutAnswer(_OfTarget):
    """One of the server processes answered no request."""

    kind: Literal["process without answer"] = "process without answer"


class RoundsTooFew(_OfTarget):
    """There are too few rounds to judge it."""

    kind: Literal["rounds too few"] = "rounds too few"
    rounds: int


class SomeProcessesMiss(_OfTarget):
    """Some server processes missed it, although a typical one need not."""

    kind: Literal["some processes miss"] = "some processes miss"
    missed: int
    rounds: int
    share_within: float


class RequestsTooFew(_OfTarget):
    """Every process met it, and so few requests do not prove it."""

    kind: Literal["requests too few"] = "requests too few"
    share_within: float
    share_ci95: Interval


Shortfall = NoRequests | TargetMissed | ProcessWithoutAnswer | RoundsTooFew | SomeProcessesMiss | RequestsTooFew
