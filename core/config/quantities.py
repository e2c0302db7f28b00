"""Parsing durations, sizes and rates, and formatting durations. No other module does so."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from typing import Any

SECONDS = {"d": 86400.0, "h": 3600.0, "min": 60.0, "s": 1.0, "ms": 1e-3}
"""The seconds of each unit, the longest unit first."""
_PART = r"([0-9]+(?:\.[0-9]+)?) ?{unit}"
_DURATION = re.compile(" ?".join(f"(?:{_PART.format(unit=unit)})?" for unit in SECONDS))
_BYTES = {"": 1, "b": 1}
for _n, _prefix in enumerate("kmgt", start=1):
    _BYTES |= {_prefix: 1000**_n, f"{_prefix}b": 1000**_n, f"{_prefix}ib": 1024**_n}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)")
MOST_BYTES = 1 << 62
DURATION_SUCH_AS = "a duration such as 200ms, 30s, 10min or 2h"
SIZE_SUCH_AS = "a size, such as 512MiB"
RATE_SUCH_AS = "a rate such as 20/s, 90/min or 1200/h"
MOST_PER_SECOND = 100_000.0
_RATE = re.compile(r"(\d+(?:\.\d+)?) ?/ ?(s|min|h)")


def parse_seconds(value: Any) -> Any:
    """The seconds of a duration: 90.0 for `1min30s`. The units are d, h, min, s and ms, longer units first.

    A value that is not text, or is a plain number, is returned unchanged. Raises ValueError for a text that is not a
    duration.
    """
    if not isinstance(value, str) or _is_number(value):
        return value
    match = _DURATION.fullmatch(value.strip())
    parts = match.groups() if match else ()
    total = sum(float(part) * length for part, length in zip(parts, SECONDS.values(), strict=False) if part)
    if not any(parts) or not math.isfinite(total):
        raise ValueError(f"must be {DURATION_SUCH_AS}, not {value[:40]!r}")
    return total


def parse_rate(value: Any) -> Any:
    """The rate per second: 20.0 for `1200/min`. A value that is not text is returned unchanged.

    Raises ValueError for a text that is not a rate.
    """
    if not isinstance(value, str):
        return value
    if not (match := _RATE.fullmatch(value.strip())):
        raise ValueError(f"must be {RATE_SUCH_AS}, not {value[:40]!r}")
    return float(match[1]) / SECONDS[match[2]]


def parse_size(value: Any) -> int:
    """The bytes of a size: `512MiB`, `1.5 GB` or a whole number. Raises ValueError for anything else."""
    count: float | None = None
    if isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())) and match[2].lower() in _BYTES:
        count = float(match[1]) * _BYTES[match[2].lower()]
    elif isinstance(value, int | float) and not isinstance(value, bool) and value == math.floor(_finite(value)):
        count = value
    if count is None or not 0 <= count <= MOST_BYTES:
        raise ValueError(f"must be {SIZE_SUCH_AS} (got {repr(value)[:60]})")
    return int(count)


def duration(length: float) -> str:
    """The duration with its one or two largest units: `200 ms`, `12.5 s`, `1 min 30 s`, `20 h`, `2 d 3 h`."""
    if length < 0.1:
        return "0 s" if (shown := _digits(length * 1e3)) == "0" else f"{shown} ms"
    if float(shown := _digits(length)) < 60:
        return f"{shown} s"
    units = list(SECONDS.items())[:4]
    for (unit, long), (smaller, short) in pairwise(units):
        whole = round(length / short)  # rounded in the smaller unit first, so that it never shows 60 of them
        if whole * short >= long:
            rest = whole % round(long / short)
            return f"{whole * short // long:.0f} {unit}" + (f" {rest} {smaller}" if rest else "")
    return "1 min"  # unreachable: the loop returns for a minute and more


def _is_number(text: str) -> bool:
    """Whether the text is a number, as in an environment variable; `nan` and `1_000` are not."""
    return re.fullmatch(r"\s*-?[0-9]+(\.[0-9]*)?(e[+-]?[0-9]+)?\s*", text, re.IGNORECASE) is not None


def _finite(value: float) -> float:
    return value if math.isfinite(value) else -1.0


def latency_target(length: float) -> str:
    """A latency target in words: `200 ms`, `1500 ms`, `1 min`."""
    return f"{length * 1e3:.4g} ms" if length < 10 else duration(length)


def _digits(value: float) -> str:
    """The number with three significant digits, never with an exponent."""
    shown = f"{value:.3g}"
    return shown if "e" not in shown else f"{float(shown):f}".rstrip("0").rstrip(".")
