"""Describing what a run would do."""

from __future__ import annotations

from collections.abc import Mapping

from ..config.quantities import duration
from .experiment import ResolvedExperiment, ResolvedTrial

LONG_SECONDS = 3600.0


def describe(resolved: ResolvedExperiment, sources: Mapping[str, str]) -> str:
    """What a run of the experiment would do, in several lines. `sources` says where each model's checkpoint is."""
    experiment, traffic = resolved.experiment, resolved.traffic
    lines = [resolved.question or experiment.name, ""]
    lines += [f"  {trial.label}: {_server(trial)}" for trial in resolved.trials]
    lines += [
        f"  model {model_id}: {reference}, {sources[model_id]}" for model_id, reference in experiment.models.items()
    ]
    lines += [f"  workload: {traffic}"] if traffic else []
    lines += [f"  recommendation for: {experiment.rate:.3g} requests per second"] if experiment.rate else []
    long = long_run_warning(resolved, experiment.repeats * len(resolved.trials))
    return "\n".join([*lines, _amount(resolved), *([long] if long else [])])


def _server(trial: ResolvedTrial) -> str:
    """A trial's loader, its dtype, and its nodes if it has some."""
    nodes = [str(trial.choice.cluster)] if trial.choice.cluster else []
    return ", ".join([trial.choice.loader.name, trial.dtype, *nodes])


def long_run_warning(resolved: ResolvedExperiment, trials: int) -> str | None:
    """A warning if this number of trials takes over an hour; None if it does not, or if that is unknown."""
    seconds = (resolved.traffic.seconds if resolved.traffic else None) or 0.0
    if seconds * trials <= LONG_SECONDS:
        return None
    bound = "at most" if resolved.experiment.precision else "about"
    return (
        f"This run takes {bound} {duration(seconds * trials)}: {trials} trials with {duration(seconds)} of traffic"
        " each. To save time, measure a short run, and simulate this traffic from it with the command 'plan'."
    )


def _amount(resolved: ResolvedExperiment) -> str:
    """A sentence with the number of rounds, trials and requests, and the duration of a workload."""
    repeats, trials, requests = resolved.experiment.repeats, len(resolved.trials), resolved.requests
    rounds = f"{'at most ' if resolved.experiment.precision else ''}{repeats} rounds of {trials} trials with"
    if resolved.traffic is None:
        requests = requests or 0
        return f"{rounds} 1 + {requests} requests each: {(requests + 1) * trials * repeats} requests."
    seconds = resolved.traffic.seconds
    parts = [f"about {requests} requests"] if requests else ["as many requests as are answered"]
    parts += [f"in {duration(seconds)}"] if seconds else []
    total = [f"about {requests * trials * repeats} requests"] if requests else []
    total += [f"{duration(seconds * trials * repeats)} of traffic"] if seconds else []
    return f"{rounds} {' '.join(parts)} each: {', '.join(total)}."
