"""Whether memory comes back: the process's PSS after each of many loads and unloads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..results.figures import MemoryReturn
from ..results.records import Sample
from .intervals import interval, typical

LEAK_MIB = 0.2  # growth for each cycle above which memory is said not to come back


def memory_return(rounds: Sequence[Sequence[Sample]], weights_mib: float) -> MemoryReturn | None:
    """Share of the weights returned, and growth for each cycle; None if it was not measured.

    The first request is the start, because what libraries allocate once is not the model's. The slope is that of
    least squares over a round's cycles, the median over rounds. A leak is a slope whose interval lies above 0.2 MiB for
    each cycle, or, with one round, the slope itself.
    """
    curves = [_curve(samples) for samples in rounds]
    curves = [curve for curve in curves if len(curve) >= 3]
    if not curves or not weights_mib:
        return None
    slopes = [float(np.polyfit(range(len(curve)), curve, 1)[0]) for curve in curves]
    grown = float(np.mean([curve[-1] - curve[0] for curve in curves]))
    bounds = interval(slopes)[:2] if len(slopes) > 1 else None
    return MemoryReturn(
        cycles=len(curves[0]) - 1,
        weights_mib=weights_mib,
        returned_share=1 - grown / weights_mib,
        slope_mib_per_cycle=typical(slopes),
        slope_ci95=bounds,
        leaks=(bounds[0] if bounds else typical(slopes)) > LEAK_MIB,
    )


def _curve(samples: Sequence[Sample]) -> list[float]:
    """PSS in MiB after each answered request, the first one too."""
    measured = (sample.memory_mib.pss for sample in samples if sample.memory_mib is not None)
    return [pss for pss in measured if pss is not None]
