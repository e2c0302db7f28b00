"""Figures as text: rates, money, milliseconds, intervals, lists. Every report takes them from here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..costs.prices import HOUR


def number(value: float, digits: int = 3) -> str:
    """So many significant digits, never an exponent: 0.00176, 201, 1,230."""
    rounded = float(f"{value:.{digits}g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 10 ** (digits - 1) else np.format_float_positional(rounded, trim="-")


def rate(per_hour: float) -> str:
    """Requests an hour, and from 2 a second on also that."""
    second = f" ({number(per_hour / HOUR)} a second)" if per_hour >= 2 * HOUR else ""
    return f"{number(per_hour)} requests an hour{second}"


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def missing(rounds: int) -> str:
    """`1 is missing`, `2 are missing`."""
    return f"{rounds} {'is' if rounds == 1 else 'are'} missing"


def between(interval: Sequence[float] | None) -> str:
    """The 95 % interval in brackets, or nothing."""
    return f" (95 % interval {number(interval[0])} to {number(interval[1])})" if interval else ""


def milliseconds(value: float) -> str:
    """With its unit: 8.4 ms, 27 ms."""
    return f"{value:.0f} ms" if value >= 20 else f"{value:.1f} ms"
