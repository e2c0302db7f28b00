"""What a run would do, in plain words."""

from __future__ import annotations

from .experiment import Plan


def describe(plan: Plan) -> str:
    experiment, traffic = plan.experiment, plan.traffic
    lines = [plan.question or experiment.name, ""]
    lines += [f"  {trial.label}: {trial.choice.loader.name}, {trial.dtype}" for trial in plan.trials]
    lines += [f"  model {model_id}: {reference}" for model_id, reference in experiment.models.items()]
    lines += [f"  workload: {traffic}"] if traffic else []
    return "\n".join([*lines, _amount(plan)])


def _amount(plan: Plan) -> str:
    """How many requests there will be, and under a workload for how long."""
    repeats, trials, requests = plan.experiment.repeats, len(plan.trials), plan.requests
    rounds = f"{'at most ' if plan.experiment.precision else ''}{repeats} rounds of {trials} trials with"
    if plan.traffic is None:
        requests = requests or 0
        return f"{rounds} 1 + {requests} requests each: {(requests + 1) * trials * repeats} requests."
    seconds = plan.traffic.seconds
    parts = [f"about {requests} requests"] if requests else ["as many requests as are answered"]
    parts += [f"in {seconds:.4g} s"] if seconds else []
    total = [f"about {requests * trials * repeats} requests"] if requests else []
    total += [f"{seconds * trials * repeats / 60:.2g} minutes of traffic"] if seconds else []
    return f"{rounds} {' '.join(parts)} each: {', '.join(total)}."
