"""A limit for memory: which trials exceed it, and the floor, which is the memory of a server without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..results.header import LimitSpec
from ..stats.rounds import Round, Run


def most_rss(rounds: Sequence[Round]) -> float | None:
    """MiB of resident memory that any of these processes held at most, start-up included; None if that is unknown."""
    most = [each.most_rss for each in rounds]
    known = [mib for mib in most if mib is not None]
    return max(known) if known and len(known) == len(most) else None


def over_limit(most: float | None, limit: LimitSpec | None) -> str | None:
    """That the trial held too much, as the end of a sentence; None if it did not, or if that is unknown."""
    if limit is None or most is None or most <= limit.memory_mib:
        return None
    return f"held up to {most:.0f} MiB, start-up included, over the limit of {limit.memory_mib:.0f} MiB"


def floor(run: Run) -> dict[str, Any] | None:
    """The least memory of a server between requests without a model; None if no trial had such a server."""
    found: list[tuple[float, float, str]] = []
    for label in run.labels:
        rounds = run.finished(label)
        memory = [(each.ended.memory_mib.idle_rss, each.ended.memory_mib.idle_pss) for each in rounds]
        is_empty = all(each.ended.resident == [] for each in rounds)
        if rounds and is_empty and not any(None in row for row in memory):
            rss, pss = map(float, np.median(np.array(memory, dtype=float), axis=0))
            found.append((rss, pss, label))
    if not found:
        return None
    rss, pss, label = min(found)
    return {"trial": label, "rss_mib": rss, "pss_mib": pss}


def floor_in_words(summary: Mapping[str, Any]) -> str:
    """The memory of a server without a model, or how to measure it."""
    least = summary["floor"]
    if least is None:
        return (
            "The memory of a server without a model is unknown, because every server held one when it was measured. To"
            " measure it, add a strategy that frees its models after each request."
        )
    return (
        f"A server without a model takes {least['rss_mib']:.0f} MiB of resident memory ({least['pss_mib']:.0f} MiB PSS,"
        f" measured under {least['trial']}). No setting takes less."
    )
