"""`--confirm`: the best two settings measured, and how far off the simulator was."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from ..bench.experiment import load_experiment
from ..bench.resume import EXPERIMENT, check_commands, write_resolved, written_models
from ..bench.traffic import Traffic
from ..bench.workload import Open, TraceChoice, Workload
from ..config.quantities import duration
from ..errors import YamlError
from ..results.header import ClusterSpec
from ..results.plan import ComparedFigures, Confirmed, ConfirmedSetting, SimulationError
from ..stats.intervals import typical
from ..stats.rounds import Round, Run
from .arrivals import Arrivals, arrivals_of
from .candidates import Candidate, simulate
from .choosing import choose
from .held import measured, simulated
from .nodes import PlanNodes
from .outcome import Outcome
from .plan_file import PlanInputs
from .routing import first_of_each

BUSY = 0.5  # share of its time that the busiest part of a server is at work: beyond, queues make every error larger
WITHIN = 0.10  # the target for the simulator's error
FEWEST = 20  # requests, for a comparison
MOST_NODES = 8  # on one machine
NAME = "confirm"


def check(inputs: PlanInputs, *, start_engines: bool = False) -> None:
    """Raises ResidencyError if the plan cannot be confirmed, whatever it will recommend.

    `start_engines`: whether programs that the experiment of the run names may be started.
    """
    check_commands(inputs.folder, inputs.run.header, may_start=start_engines)
    if inputs.file.models is not None:
        raise YamlError(
            f"--confirm: 'models' in {inputs.path} asks for models that are only simulated, which cannot be served;"
            " leave that key out, and measure the models themselves in the run."
        )
    if not inputs.on_its_own_clock:
        raise YamlError(
            f"--confirm: needs a trace at its original speed; remove 'speed' from the workload in {inputs.path}."
        )
    _check_nodes(inputs)
    load_experiment(inputs.folder / EXPERIMENT)
    _enough(inputs, len(inputs.arrivals.until(inputs.file.confirm.window).at))


def _check_nodes(inputs: PlanInputs) -> None:
    if (nodes := inputs.nodes) is None:
        return
    if nodes.routing == "multiplexed":
        raise YamlError(
            f"--confirm: 'routing: multiplexed' in {inputs.path} is Ray Serve's own rule, which is only simulated; use"
            " 'routing: homes', or compare both with experiments/cluster.yaml."
        )
    if nodes.count > MOST_NODES:
        raise YamlError(
            f"--confirm: starts all nodes on this machine, {MOST_NODES} at most; lower 'nodes' in {inputs.path} from"
            f" {nodes.count} to 2, say, and the rate of the workload with it."
        )


def _enough(inputs: PlanInputs, requests: float) -> None:
    if requests < FEWEST:
        raise YamlError(
            f"--confirm: {requests:.0f} requests come in the first {duration(inputs.file.confirm.window)}, too few:"
            f" {FEWEST} are needed; lengthen 'confirm.window', or the workload, in {inputs.path}."
        )


def write_experiment(inputs: PlanInputs, found: Sequence[Candidate], folder: Path) -> Path:
    """The experiment that runs the best two settings on the beginning of the traffic, at its original speed, thinned to
    what both can serve; its path in `folder`.

    Raises ResidencyError if no setting can be recommended, or if too little of the traffic could be served.
    """
    best = _best(inputs, found)
    if not best:
        raise YamlError("--confirm: no setting can be recommended, so there is nothing to confirm.")
    measured = load_experiment(inputs.folder / EXPERIMENT)
    workload = _thin(inputs, best).model_dump(mode="json", exclude_none=True)
    experiment = measured.experiment.model_dump(mode="json", exclude_none=True) | {
        "name": NAME,
        "strategies": [_choice(candidate, inputs.nodes) for candidate in best],
        "workload": workload,
        "repeats": inputs.file.confirm.repeats,
        "seed": inputs.file.seed,
        "plugins": inputs.plugins,
        "memory_after_each": False,
        "page_cache": "warm",
    }
    experiment["batching"] = experiment.get("batching") or "off"
    experiment["models"] = written_models(measured)
    if measured.experiment.requests:
        experiment["requests"] = measured.experiment.requests.written
    for key in ("repetitions", "precision", "rate"):
        experiment.pop(key, None)
    path = folder / f"{NAME}.yaml"
    write_resolved(path, f"Does {inputs.file.name} behave as simulated?", experiment, measured.texts)
    return path


def _best(inputs: PlanInputs, found: Sequence[Candidate]) -> list[Candidate]:
    """The chosen one and the runner-up."""
    choice = choose(found, inputs.trifle)
    return choice.ranked[:2] if choice else []


def _choice(candidate: Candidate, nodes: PlanNodes | None) -> dict[str, JsonValue]:
    setting, profile = candidate.setting, candidate.profile
    choice: dict[str, JsonValue] = {
        "strategy": setting.strategy,
        "options": dict(setting.options),
        "loader": {"name": profile.loader, **profile.options},
        "label": candidate.label[:60],
    }
    return choice if nodes is None else choice | {"cluster": _cluster(nodes.cluster)}


def _cluster(spec: ClusterSpec) -> dict[str, JsonValue]:
    return {"nodes": spec.nodes, "lifecycle": spec.lifecycle, **spec.options}


def _thin(inputs: PlanInputs, best: Sequence[Candidate]) -> Workload:
    """The workload's beginning, with as large a share of its requests as both can serve."""
    length = inputs.file.confirm.window
    window = inputs.arrivals.until(length)
    outcomes = [_simulate(inputs, each, window, resident=False) for each in best]
    keep = min([1.0, *(BUSY / busy for outcome in outcomes if (busy := _busy(outcome)))])
    keep = float(f"{keep:.3g}")
    _enough(inputs, keep * len(window.at))
    workload = inputs.traffic.workload
    if workload.trace is not None:
        return Workload(trace=_trace_until(workload.trace, length, keep))
    assert workload.open is not None  # or there would be no plan
    seconds = min(length, inputs.traffic.seconds or length)
    return Workload(open=_open_for(workload.open, seconds, keep))


def _busy(outcome: Outcome) -> float:
    """Share of the time that a server is at work; of nodes, which share the cores of one machine, the sum."""
    return outcome.busy if outcome.nodes is None else sum(each.busy for each in outcome.nodes.each)


def _trace_until(trace: TraceChoice, length: float, keep: float) -> TraceChoice:
    """The trace's beginning of that length, with that share of its requests."""
    begin, end = trace.window or [0.0, math.inf]
    return trace.model_copy(update={"window": [begin, min(begin + length, end)], "thin": trace.thin * keep})


def _open_for(traffic: Open, seconds: float, keep: float) -> Open:
    """So many seconds of the traffic, with that share of its requests."""
    return traffic.model_copy(update={"requests": None, "rate": traffic.rate * keep, "duration": seconds})


def _simulate(
    inputs: PlanInputs, candidate: Candidate, arrivals: Arrivals, *, resident: bool, number: int = 0
) -> Outcome:
    """As it would be measured in the round of that number, which has draws of its own: before the workload, the first
    request of each server leaves its model in memory.
    """
    nodes = inputs.nodes
    first = [0] if nodes is None else first_of_each(list(candidate.profile.models), nodes.count)
    return simulate(
        candidate.setting,
        candidate.profile,
        arrivals,
        inputs.max_batch,
        inputs.file.seed + number,
        inputs.prices,
        resident=first if resident else [],
        nodes=nodes,
    )


def errors(inputs: PlanInputs, found: Sequence[Candidate], traffic: Traffic, run: Run) -> Confirmed:
    """For each setting, the medians over rounds of what was measured and of what the simulator finds for the same
    arrivals, and its error relative to what was measured.
    """
    trials = [
        _compare(inputs, candidate, traffic, label, rounds)
        for candidate, label in zip(_best(inputs, found), run.labels, strict=True)
        if (rounds := [each for each in run.finished(label) if each.answered])
    ]
    return Confirmed(requests=traffic.requests, trials=trials)


def _compare(
    inputs: PlanInputs, candidate: Candidate, traffic: Traffic, label: str, rounds: Sequence[Round]
) -> ConfirmedSetting:
    seen = _typical([_as_measured(inputs, candidate, each) for each in rounds])
    expected = _typical([_as_simulated(inputs, candidate, traffic, each.number) for each in rounds])
    error = SimulationError(
        cold_share=_error(expected.cold_share, seen.cold_share),
        mean_ms=_error(expected.mean_ms, seen.mean_ms),
        cost_per_hour=_error(expected.cost_per_hour, seen.cost_per_hour),
    )
    return ConfirmedSetting(
        label=label, rounds=len(rounds), measured=seen, simulated=expected, error=error, target=WITHIN
    )


def _as_measured(inputs: PlanInputs, candidate: Candidate, each: Round) -> ComparedFigures:
    held = measured(candidate.profile, each)
    return ComparedFigures(
        cold_share=sum(bool(sample.cold) for sample in each.answered) / len(each.answered),
        mean_ms=float(np.mean([sample.ms for sample in each.answered])),
        cost_per_hour=held.cost_per_hour(inputs.prices) if held else None,
    )


def _as_simulated(inputs: PlanInputs, candidate: Candidate, traffic: Traffic, number: int) -> ComparedFigures:
    outcome = _simulate(inputs, candidate, arrivals_of(traffic, number), resident=True, number=number)
    return ComparedFigures(
        cold_share=outcome.cold / len(outcome.latencies),
        mean_ms=float(outcome.latencies.mean()) * 1e3,
        cost_per_hour=simulated(candidate.profile, outcome).cost_per_hour(inputs.prices),
    )


def _typical(rounds: Sequence[ComparedFigures]) -> ComparedFigures:
    """The median of each figure."""
    costs = [each.cost_per_hour for each in rounds]
    known = [cost for cost in costs if cost is not None]
    return ComparedFigures(
        cold_share=typical([each.cold_share for each in rounds]),
        mean_ms=typical([each.mean_ms for each in rounds]),
        cost_per_hour=typical(known) if len(known) == len(costs) else None,
    )


def _error(simulated: float | None, measured: float | None) -> float | None:
    """The error relative to what was measured; 0 if both are 0, None if only the measured one is, or one is unknown."""
    if measured is None or simulated is None:
        return None
    if measured == 0:
        return 0.0 if simulated == 0 else None
    return simulated / measured - 1
