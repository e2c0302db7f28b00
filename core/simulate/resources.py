"""What a server's memory and processor time are made of: least squares over the processes of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..decide.rounds import Record, Round

Measured = Sequence[tuple[Record, Round]]  # a trial's description, and a round of it


@dataclass(frozen=True)
class Memory:
    """Charged memory between requests: `base_mib`, and for each MiB of weights in memory `per_weight` MiB."""

    base_mib: float
    per_weight: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Processor:
    """Core seconds of a request and of a load; None where they were not measured."""

    request: float | None
    load: float | None
    notes: tuple[str, ...] = ()


def memory_of(rounds: Measured, models: int, weights_mib: float, charge: str) -> Memory:
    """`weights_mib` of all `models`; what is in memory at the end of a round is what was loaded and not unloaded."""
    points = []
    for _, each in rounds:
        idle, unloads = each.ended["memory_mib"].get(f"idle_{charge}"), each.ended.get("unloads")
        if idle is not None and unloads is not None:
            points.append(((each.ended["loads"] - unloads) / models * weights_mib, float(idle)))
    held = {x for x, _ in points}
    if len(held) > 1:
        slope, base = np.polyfit([x for x, _ in points], [idle for _, idle in points], 1)
        if slope > 0:
            return Memory(float(base), float(slope))
        note = "between requests, a server with models held no more than one without, as far as that can be told;"
    elif not points:
        note = "memory was not measured; an empty server is taken to hold nothing, and a model as much as its weights."
        return Memory(0.0, 1.0, (note,))
    else:
        note = "only servers that hold the same number of models were measured;"
    base = float(np.mean([idle - x for x, idle in points]))
    return Memory(max(0.0, base), 1.0, (f"{note} a model is taken to hold as much as its weights.",))


def processor_of(rounds: Measured) -> Processor:
    """Non-negative least squares of what each process took on its requests and loads.

    Loads before the steady state are none of it: a persistent server's, and else that of the first request.
    """
    measured = []
    for _, each in rounds:
        loads = max(0, each.ended["loads"] - 1) if any(sample["cold"] for sample in each.answered) else 0
        if (taken := each.ended.get("processor_s")) is not None and each.steady:
            measured.append((len(each.steady), loads, taken))
    if not measured:
        note = "processor time was not measured; a load or a forward is taken to use one core for as long as it lasts."
        return Processor(None, None, (note,))
    counts, taken = np.array([row[:2] for row in measured], dtype=float), np.array([row[2] for row in measured])
    if np.linalg.matrix_rank(counts) < 2:
        note = "the processor time of loads cannot be told from that of requests; a load is taken to use one core."
        return Processor(None, None, (note,))
    from scipy.optimize import nnls  # takes a while to import, and most commands need none of it

    request, load = nnls(counts, taken)[0]
    return Processor(float(request), float(load))
