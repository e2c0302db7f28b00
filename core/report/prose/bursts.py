"""What is said of the bursts of a card."""

from __future__ import annotations

from ...results.card import Bursts
from ..format import milliseconds, percent, rate


def say_bursts(bursts: Bursts) -> str:
    """How much longer callers wait if requests come in bursts, and how that moves the break-even rate."""
    return (
        "With bursty arrivals (simulated; the squared coefficient of variation of the gaps is"
        f" {bursts.burstiness:g}) at {rate(bursts.at)}, callers wait {_longer(bursts.longer_ms)} on average under"
        f" {bursts.cheaper_below} than under {bursts.cheaper_above}; with evenly spaced arrivals,"
        f" {_longer(bursts.alone_ms)}.{_flips(bursts)}"
    )


def _longer(ms: float) -> str:
    return f"{milliseconds(abs(ms))} {'longer' if ms >= 0 else 'less'}"


def _flips(bursts: Bursts) -> str:
    """The break-even rate for bursts, relative to that for evenly spaced arrivals. Both are the simulator's, whose
    prices of memory and loads need not be exactly the card's.
    """
    if bursts.alone_flip is None:
        return ""
    if bursts.flip is None:
        within = f"within a factor of {bursts.widest:g} of {rate(bursts.near)}"
        return f" For bursts, no break-even rate was found {within}."
    moved = bursts.flip / bursts.alone_flip
    share = f"within {percent(bursts.same)} of" if abs(moved - 1) < bursts.same else f"about {percent(moved)} of"
    return f" The break-even rate for bursts is {share} the one for evenly spaced arrivals."
