"""Figures as text: rates, money, milliseconds, intervals, lists. Every report takes them from here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..config.quantities import latency_target
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


def percent(fraction: float, digits: int = 0) -> str:
    """So many digits after the point: 97%, 4.2%, 99.85%."""
    return f"{fraction:.{digits}%}"


def widths(relative: Mapping[str, float]) -> str:
    """Of intervals, by label: `a 4.2%, b 3.1%`."""
    return ", ".join(f"{label} {percent(width, 1)}" for label, width in relative.items())


def between(interval: Sequence[float] | None) -> str:
    """The 95 % interval in brackets, or nothing."""
    return f" (95 % interval {number(interval[0])} to {number(interval[1])})" if interval else ""


def milliseconds(value: float) -> str:
    """With its unit: 8.4 ms, 27 ms."""
    return f"{value:.0f} ms" if value >= 20 else f"{value:.1f} ms"


def count(number: int, noun: str) -> str:
    """`1 round`, `5 rounds`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def whole_mib(mib: float) -> str:
    """With its unit: 512 MiB."""
    return f"{mib:.0f} MiB"


def target(percentile: str, ms: float) -> str:
    """What a latency should meet: p99 ≤ 200 ms."""
    return f"{percentile} ≤ {latency_target(ms / 1e3)}"


MISSING = "n/a"
"""What a table says of a figure that is not known."""
NOTHING = "-"
"""What it says where there is nothing of which there could be a figure."""


def decimals(value: float | None, digits: int) -> str:
    """So many digits after the point, or n/a."""
    return MISSING if value is None else f"{value:.{digits}f}"


def bare_milliseconds(value: float | None) -> str:
    """Without the unit, which a table's head has: 8.4, 99.5, 113, or n/a."""
    return decimals(value, 1 if value is not None and value < 100 else 0)


def share(value: float | None) -> str:
    """In per cent: 0%, 12.5%, 100%, or n/a."""
    return MISSING if value is None else f"{value:.0%}" if value in (0, 1) else f"{value:.1%}"


def amount(value: float | None) -> str:
    """Money, or another figure of any size, as `number` has it, or n/a."""
    return MISSING if value is None else number(value)


def value_text(value: str | float | Sequence[str] | None) -> str:
    """A value as it was recorded; a list's parts with commas."""
    if value is None:
        return MISSING
    return str(value) if isinstance(value, str | float | int) else ", ".join(value)
