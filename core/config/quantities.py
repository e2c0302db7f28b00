"""Durations, sizes and rates as people write them, durations as they are told; the only place that does it."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from typing import Any

SECONDS = {"d": 86400.0, "h": 3600.0, "min": 60.0, "s": 1.0, "ms": 1e-3}
"""By unit, from the longest one."""
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


def seconds(value: Any) -> Any:
    """90.0 of `1min30s`: numbers with the units d, h, min, s and ms, the longer ones first. Anything but a text, and a
    plain number, is returned as it is. Raises ValueError for a text that is no duration.
    """
    if not isinstance(value, str) or _is_number(value):
        return value
    match = _DURATION.fullmatch(value.strip())
    parts = match.groups() if match else ()
    total = sum(float(part) * length for part, length in zip(parts, SECONDS.values(), strict=False) if part)
    if not any(parts) or not math.isfinite(total):
        raise ValueError(f"must be {DURATION_SUCH_AS}, not {value[:40]!r}")
    return total


def per_second(value: Any) -> Any:
    """20.0 of `1200/min`. Anything but a text is returned as it is. Raises ValueError for a text that is no rate."""
    if not isinstance(value, str):
        return value
    if not (match := _RATE.fullmatch(value.strip())):
        raise ValueError(f"must be {RATE_SUCH_AS}, not {value[:40]!r}")
    return float(match[1]) / SECONDS[match[2]]


def size(value: Any) -> int:
    """Bytes of `512MiB`, `1.5 GB` or a whole number. Raises ValueError for anything else."""
    count: float | None = None
    if isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())) and match[2].lower() in _BYTES:
        count = float(match[1]) * _BYTES[match[2].lower()]
    elif isinstance(value, int | float) and not isinstance(value, bool) and value == math.floor(_finite(value)):
        count = value
    if count is None or not 0 <= count <= MOST_BYTES:
        raise ValueError(f"must be {SIZE_SUCH_AS} (got {repr(value)[:60]})")
    return int(count)


def duration(length: float) -> str:
    """`200 ms`, `12.5 s`, `1 min 30 s`, `20 h`, `2 d 3 h`: the two largest units, or digits where that is one."""
    if length < 0.1:
        return "0 s" if (shown := _digits(length * 1e3)) == "0" else f"{shown} ms"
    if float(shown := _digits(length)) < 60:
        return f"{shown} s"
    units = list(SECONDS.items())[:4]
    for (unit, long), (smaller, short) in pairwise(units):
        whole = round(length / short)  # of the smaller unit, so that nothing is told as 60 of it
        if whole * short >= long:
            rest = whole % round(long / short)
            return f"{whole * short // long:.0f} {unit}" + (f" {rest} {smaller}" if rest else "")
    return "1 min"  # not reached: a minute and more has units


def _is_number(text: str) -> bool:
    """Of a variable, whose numbers are text; `nan` and `1_000` are none."""
    return re.fullmatch(r"\s*-?[0-9]+(\.[0-9]*)?(e[+-]?[0-9]+)?\s*", text, re.IGNORECASE) is not None


def _finite(value: float) -> float:
    return value if math.isfinite(value) else -1.0


def limit(length: float) -> str:
    """What a latency must be below: `200 ms`, `1500 ms`, `1 min`."""
    return f"{length * 1e3:.4g} ms" if length < 10 else duration(length)


def _digits(value: float) -> str:
    """Three of them, never with an exponent."""
    shown = f"{value:.3g}"
    return shown if "e" not in shown else f"{float(shown):f}".rstrip("0").rstrip(".")
