"""`--confirm`: the best two settings measured, and how far off the simulator was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..bench.experiment import load_experiment
from ..bench.resume import EXPERIMENT, write_resolved
from ..bench.traffic import Traffic
from ..config.quantities import duration
from ..errors import YamlError
from ..stats.rounds import Run
from .arrivals import Arrivals, arrivals_of
from .candidates import Candidate, simulate
from .choosing import choose
from .outcome import Outcome
from .plan_file import Planned

BUSY = 0.5  # share of its time that the busiest part of a server is at work: beyond, queues make every error larger
WITHIN = 0.10  # the target for the simulator's error
FEWEST = 20  # requests, for a comparison
NAME = "confirm"


def check(planned: Planned) -> None:
    """Raises ResidencyError if the plan cannot be confirmed, whatever it will recommend."""
    if planned.file.models is not None:
        raise YamlError(
            f"--confirm: 'models' in {planned.path} asks for simulated copies, which cannot be served; leave that key"
            " out."
        )
    if not planned.on_its_own_clock:
        raise YamlError(
            f"--confirm: needs a trace at its original speed; remove 'speed' from the workload in {planned.path}."
        )
    load_experiment(planned.folder / EXPERIMENT)
    _enough(planned, len(planned.arrivals.until(planned.file.confirm.window).at))


def _enough(planned: Planned, requests: float) -> None:
    if requests < FEWEST:
        raise YamlError(
            f"--confirm: {requests:.0f} requests come in the first {duration(planned.file.confirm.window)}, too few:"
            f" {FEWEST} are needed; lengthen 'confirm.window', or the workload, in {planned.path}."
        )


def write_experiment(planned: Planned, found: Sequence[Candidate], folder: Path) -> Path:
    """The experiment that runs the best two settings on the beginning of the traffic, at its original speed, thinned to
    what both can serve; its path in `folder`.

    Raises ResidencyError if no setting can be recommended, or if too little of the traffic could be served.
    """
    best = _best(planned, found)
    if not best:
        raise YamlError("--confirm: no setting can be recommended, so there is nothing to confirm.")
    measured = load_experiment(planned.folder / EXPERIMENT)
    workload = _thinned(planned, best)
    experiment = measured.experiment.model_dump(mode="json", exclude_none=True) | {
        "name": NAME,
        "strategies": [_choice(candidate) for candidate in best],
        "workload": workload,
        "repeats": planned.file.confirm.repeats,
        "seed": planned.file.seed,
        "plugins": planned.plugins,
        "memory_after_each": False,
        "page_cache": "warm",
    }
    experiment["batching"] = experiment.get("batching") or "off"
    for key in ("repetitions", "precision", "rate"):
        experiment.pop(key, None)
    path = folder / f"{NAME}.yaml"
    write_resolved(path, f"Does {planned.file.name} behave as simulated?", experiment, measured.texts)
    return path


def _best(planned: Planned, found: Sequence[Candidate]) -> list[Candidate]:
    """The chosen one and the runner-up."""
    choice = choose(found, planned.trifle)
    return choice.ranked[:2] if choice else []


def _choice(candidate: Candidate) -> dict[str, Any]:
    setting, profile = candidate.setting, candidate.profile
    loader = {"name": profile.loader, **profile.options}
    options = dict(setting.options)
    return {
        "strategy": setting.strategy,
        "options": options,
        "loader": loader,
        "label": candidate.label[:60],
    }


def _thinned(planned: Planned, best: Sequence[Candidate]) -> dict[str, Any]:
    """The workload's beginning, with as large a share of its requests as both can serve."""
    length = planned.file.confirm.window
    window = planned.arrivals.until(length)
    outcomes = [_simulated(planned, each, window, resident=False) for each in best]
    keep = min([1.0, *(BUSY / busy for outcome in outcomes if (busy := outcome.busy))])
    keep = float(f"{keep:.3g}")
    _enough(planned, keep * len(window.at))
    workload = planned.traffic.workload.model_dump(mode="json", exclude_none=True)
    if trace := workload.get("trace"):
        begin = (trace.get("window") or [0.0])[0]
        end = min(begin + length, (trace.get("window") or [0.0, float("inf")])[1])
        trace |= {"window": [begin, end], "thin": trace["thin"] * keep}
    else:
        seconds = min(length, planned.traffic.seconds or length)
        opened = workload["open"]
        opened.pop("requests", None)
        opened |= {"rate": opened["rate"] * keep, "duration": seconds}
    return workload


def _simulated(planned: Planned, candidate: Candidate, arrivals: Arrivals, *, resident: bool) -> Outcome:
    """As it would be measured: the first request, before the workload, leaves its model in memory."""
    before = [0] if resident else []
    return simulate(
        candidate.setting,
        candidate.profile,
        arrivals,
        planned.max_batch,
        planned.file.seed,
        planned.prices,
        resident=before,
    )


def errors(planned: Planned, found: Sequence[Candidate], traffic: Traffic, run: Run) -> dict[str, Any]:
    """For each setting, over all rounds, what was measured, what the simulator finds for the same arrivals, and its
    error relative to what was measured: `{"trials": [{"label", "rounds", "measured", "simulated", "error"}]}`, and
    sentences.
    """
    trials = []
    for candidate, label in zip(_best(planned, found), run.labels, strict=True):
        rounds = run.finished(label)
        if rounds and any(each.answered for each in rounds):
            trials.append({"label": label, "rounds": len(rounds), **_compared(planned, candidate, traffic, run, label)})
    return {"requests": traffic.requests, "trials": trials, "sentences": sentences(trials)}


def _compared(planned: Planned, candidate: Candidate, traffic: Traffic, run: Run, label: str) -> dict[str, Any]:
    rounds = run.finished(label)
    answered = [sample for each in rounds for sample in each.answered]
    measured = {
        "cold_share": sum(bool(sample.cold) for sample in answered) / len(answered),
        "mean_ms": float(np.mean([sample.ms for sample in answered])),
    }
    outcomes = [_simulated(planned, candidate, arrivals_of(traffic, each.number), resident=True) for each in rounds]
    latencies = np.concatenate([outcome.latencies for outcome in outcomes])
    simulated = {
        "cold_share": sum(outcome.cold for outcome in outcomes) / len(latencies),
        "mean_ms": float(latencies.mean()) * 1e3,
    }
    error = {key: _error(simulated[key], measured[key]) for key in measured}
    return {"measured": measured, "simulated": simulated, "error": error}


def _error(simulated: float, measured: float) -> float | None:
    """The error relative to what was measured; 0 if both are 0, None if only the measured one is."""
    if measured == 0:
        return 0.0 if simulated == 0 else None
    return simulated / measured - 1


def sentences(trials: Sequence[Mapping[str, Any]]) -> list[str]:
    """One for each setting."""
    found = []
    for trial in trials:
        measured, simulated, error = trial["measured"], trial["simulated"], trial["error"]
        known = [abs(value) for value in error.values() if value is not None]
        held = "within" if len(known) == len(error) and max(known) <= WITHIN else "beyond"
        found.append(
            f"{trial['label']}, measured against simulated: cold {measured['cold_share']:.1%} against"
            f" {simulated['cold_share']:.1%} ({_percent(error['cold_share'])}), mean {measured['mean_ms']:.1f} against"
            f" {simulated['mean_ms']:.1f} ms ({_percent(error['mean_ms'])}): {held} the target of {WITHIN:.0%}."
        )
    return found or ["Nothing was confirmed: no trial was finished."]


def _percent(error: float | None) -> str:
    return "no measured request was cold" if error is None else f"an error of {error:+.1%}"
