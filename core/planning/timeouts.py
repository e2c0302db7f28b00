"""How long to keep an idle model, in closed form: docs/economics.md derives the formulas.

m is the price of holding the model for a second, k that of one cold start, in one currency; rates are per second,
times in seconds. The assumptions: one model, no service time, no memory budget shared with other models, and requests
that overlap share a load.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..results.plan_models import Timeout

Floats = NDArray[np.float64]
# On Poisson gaps at the break-even rate every timeout costs k for each gap, the clairvoyant k (1 − 1/e).
POISSON_REGRET = math.e / (math.e - 1)


def cost_rate(timeout: float, rate: float, holding: float, cold_start: float) -> float:
    """C(T) = m + e^(−λT) (λk − m): what Poisson requests cost per second under an idle timeout T."""
    return holding + math.exp(-rate * timeout) * (rate * cold_start - holding)


def break_even_rate(holding: float, cold_start: float) -> float:
    """λ* = m/k: below it, loading for each Poisson request is cheaper, above it keeping; infinite where k is 0."""
    return holding / cold_start if cold_start else math.inf


def ski_rental_timeout(holding: float, cold_start: float) -> float:
    """T = k/m: at most twice the clairvoyant cost on any trace (Karlin, Manasse, Rudolph, Sleator 1988)."""
    return cold_start / holding if holding else math.inf


def best_gamma_timeout(rate: float, burstiness: float, holding: float, cold_start: float) -> float:
    """The best timeout where the gaps are gamma distributed: mean 1/rate, squared coefficient of variation b.

    The cost of a gap has the derivative S(T) (m − k h(T)). In bursts (b > 1) the hazard rate h falls from infinity to
    rate/b, so the optimum is where h(T) = m/k, or infinity. Otherwise h rises, so it is 0 or infinity.
    """
    threshold = break_even_rate(holding, cold_start)
    if burstiness <= 1:
        return math.inf if holding / rate < cold_start else 0.0
    if threshold <= rate / burstiness:
        return math.inf
    from scipy.optimize import brentq  # takes a while to import, and most commands need none of it
    from scipy.stats import gamma

    gaps = gamma(1 / burstiness, scale=burstiness / rate)

    def excess(log_timeout: float) -> float:
        timeout = math.exp(log_timeout)
        return float(gaps.logpdf(timeout) - gaps.logsf(timeout)) - math.log(threshold)

    shortest, longest = math.log(1e-12 / rate), math.log(100 * burstiness / rate)
    if excess(shortest) <= 0:  # bursts so dense that even they are not worth it: k is next to nothing
        return 0.0
    return math.exp(brentq(excess, shortest, longest)) if excess(longest) < 0 else math.inf


def timeout_cost(gaps: Floats, timeout: float, holding: float, cold_start: float) -> float:
    """The cost of a trace's gaps under an idle timeout: each costs m·min(g, T), and k if g > T; first comes one k."""
    kept = np.minimum(gaps, timeout)
    return float(holding * kept.sum() + cold_start * (1 + np.count_nonzero(gaps > timeout)))


def clairvoyant_cost(gaps: Floats, holding: float, cold_start: float) -> float:
    """The least that a trace's gaps can cost: min(m·g, k) each; the first load is charged."""
    return float(cold_start + np.minimum(holding * gaps, cold_start).sum())


def best_timeout_in_hindsight(gaps: Floats, holding: float, cold_start: float) -> float:
    """The fixed timeout with the least `timeout_cost` on these gaps: 0, one of the gaps, or infinity for the longest.

    Between two gaps the cost only rises with T, so that no other timeout needs to be tried.
    """
    ordered = np.sort(gaps)
    within = np.searchsorted(ordered, ordered, side="right")  # gaps that each of them, as a timeout, bridges
    beyond = len(ordered) - within
    if not len(ordered):
        return 0.0
    costs = holding * np.cumsum(ordered)[within - 1] + beyond * (holding * ordered + cold_start)
    best = int(np.argmin(costs))
    if costs[best] >= len(ordered) * cold_start:
        return 0.0
    return math.inf if beyond[best] == 0 else float(ordered[best])


def timeout_or_forever(timeout: float) -> Timeout:
    """The timeout as a plan records it."""
    return timeout if math.isfinite(timeout) else "forever"
