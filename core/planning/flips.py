"""What changes a plan's answer: another price of memory, or a target for latency."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..costs.memory_price import Bill, memory_price_flips

QUICKER = 0.9  # times the latency: what is closer is within the simulator's error
Row = Mapping[str, Any]


def flips(ranked: Sequence[Row], price: float | None) -> list[dict[str, Any]]:
    """The price of memory and the target for latency at which another setting is the better one. `ranked` are the
    eligible settings, the chosen one first; `price` is that of a GiB-hour, None if memory has no price of its own.
    """
    if not ranked:
        return []
    best, *others = ranked
    if price is None:
        return list(_latency(best, others))
    dearer = [_bill(row, price) for row in others if row["cost"]["total"] > best["cost"]["total"]]
    return [*memory_price_flips(_bill(best, price), dearer, price), *_latency(best, others)]


def _bill(row: Row, price: float) -> Bill:
    gib_hours = row["gib_hours"]
    return Bill(row["label"], {0: gib_hours}, {0: row["cost"]["total"] - gib_hours * price})


def _latency(best: Row, others: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """The target for latency that needs a faster setting, and the cheapest such setting."""
    q = "p99" if best["p99_ms"] is not None else "p50"
    ours = best[f"{q}_ms"]
    quicker = next((row for row in others if ours is not None and row[f"{q}_ms"] < QUICKER * ours), None)
    if quicker is not None:
        to, theirs = quicker["label"], quicker[f"{q}_ms"]
        sentence = (
            f"If {q} must be below {ours:.3g} ms, {best['label']} is too slow, whatever its cost; use {to} ({q}"
            f" {theirs:.3g} ms)."
        )
        yield {"what": "latency target", "at": ours, "unit": f"ms ({q})", "to": to, "sentence": sentence}
