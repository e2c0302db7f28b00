"""What a run would do, in plain words."""

from __future__ import annotations

from collections.abc import Mapping

from ..config.quantities import duration
from .experiment import Plan

LONG_SECONDS = 3600.0


def describe(plan: Plan, found: Mapping[str, str]) -> str:
    """`found` says of each model id where its checkpoint is."""
    experiment, traffic = plan.experiment, plan.traffic
    lines = [plan.question or experiment.name, ""]
    lines += [f"  {trial.label}: {trial.choice.loader.name}, {trial.dtype}" for trial in plan.trials]
    lines += [
        f"  model {model_id}: {reference}, {found[model_id]}" for model_id, reference in experiment.models.items()
    ]
    lines += [f"  workload: {traffic}"] if traffic else []
    lines += [f"  to be advised for: {experiment.rate:.3g} requests a second"] if experiment.rate else []
    long = long_run(plan, experiment.repeats * len(plan.trials))
    return "\n".join([*lines, _amount(plan), *([long] if long else [])])


def long_run(plan: Plan, trials: int) -> str | None:
    """That so many trials take over an hour, and the shorter way; None where they do not, or where nobody can tell."""
    seconds = (plan.traffic.seconds if plan.traffic else None) or 0.0
    if seconds * trials <= LONG_SECONDS:
        return None
    return (
        f"This run takes {'at most' if plan.experiment.precision else 'about'} {duration(seconds * trials)}: {trials}"
        f" trials with {duration(seconds)} of traffic each. A shorter way: measure a short run, and simulate this"
        " traffic from it with the command plan."
    )


def _amount(plan: Plan) -> str:
    """How many requests there will be, and under a workload for how long."""
    repeats, trials, requests = plan.experiment.repeats, len(plan.trials), plan.requests
    rounds = f"{'at most ' if plan.experiment.precision else ''}{repeats} rounds of {trials} trials with"
    if plan.traffic is None:
        requests = requests or 0
        return f"{rounds} 1 + {requests} requests each: {(requests + 1) * trials * repeats} requests."
    seconds = plan.traffic.seconds
    parts = [f"about {requests} requests"] if requests else ["as many requests as are answered"]
    parts += [f"in {duration(seconds)}"] if seconds else []
    total = [f"about {requests * trials * repeats} requests"] if requests else []
    total += [f"{duration(seconds * trials * repeats)} of traffic"] if seconds else []
    return f"{rounds} {' '.join(parts)} each: {', '.join(total)}."
