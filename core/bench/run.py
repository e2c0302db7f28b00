"""All trials of an experiment, in interleaved rounds."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import Protocol

from ..checkpoints import checkpoint
from ..checkpoints.dtypes import BYTES, converted
from ..checkpoints.references import resolve, where
from ..errors import ModelReferenceError, TrialFailed
from ..results.folder import Records, RunRecords
from ..results.header import (
    SCHEMA,
    BatchingSpec,
    CostSpec,
    LimitSpec,
    ModelSpec,
    RunHeader,
    TrialSpec,
    WorkloadSpec,
)
from ..results.records import Begin, Failure, Stop
from ..system.page_cache import read_anew
from .client import MOST_LABELS
from .convert import convert_for
from .experiment import Plan, TrialPlan
from .resume import write_experiment
from .trial import Trial, run_trial

MIB = 1 << 20


class Progress(Protocol):
    """Told how far a run is."""

    def trial_started(self, number: int, label: str) -> None:
        """`number` is that of the round, from 0."""

    def requests_done(self, count: int) -> None: ...

    def trial_ended(self, failure: str | None) -> None: ...


def prepare(plan: Plan) -> tuple[dict[str, Path], dict[str, str]]:
    """(checkpoint directory, SHA-256) of each model by id. Raises ModelReferenceError.

    Every trial finds converted what its loader converts, and the weights in the page cache as a reader has left them,
    not as a writer has.
    """
    checkpoints = {}
    for model_id, reference in plan.experiment.models.items():
        try:
            directory = checkpoints[model_id] = resolve_apart(reference)
        except ModelReferenceError as error:
            raise ModelReferenceError(f"Model '{model_id}': {error}") from error
        if plan.experiment.page_cache == "cold" and list(checkpoints.values()).count(directory) > 1:
            raise ModelReferenceError(
                f"Model '{model_id}' is the checkpoint of another one, too, which may keep it in the page cache:"
                " with 'page_cache: cold', give each model a checkpoint of its own."
            )
    convert_for(plan, list(checkpoints.values()))
    for directory in checkpoints.values():
        copies = {converted(directory, trial.dtype) for trial in plan.trials}
        for folder in (directory, *(copy for copy in copies if copy.is_dir())):
            for file in checkpoint.weights(folder):
                read_anew(file)
    return checkpoints, {model_id: checkpoint.known_sha256(directory) for model_id, directory in checkpoints.items()}


def look_up(plan: Plan) -> dict[str, str]:
    """Where the checkpoint of each model id is, or will come from; writes and downloads nothing.

    Raises ModelReferenceError for one that a run would not find.
    """
    found = {}
    for model_id, reference in plan.experiment.models.items():
        try:
            found[model_id] = where(reference)
        except ModelReferenceError as error:
            raise ModelReferenceError(f"Model '{model_id}': {error}") from error
    return found


def resolve_apart(reference: str) -> Path:
    """In a process of its own where that may import torch: this one must not map the libraries whose
    pages it charges to a server.
    """
    if not reference.startswith("synthetic:"):
        return resolve(reference)
    with ProcessPoolExecutor(1, get_context("spawn")) as apart:
        return apart.submit(resolve, reference).result()


def begin(plan: Plan, checkpoints: Mapping[str, Path], digests: Mapping[str, str], folder: Path) -> None:
    """Say in the folder what is run, before anything is."""
    header = _header(plan, checkpoints, digests, write_experiment(folder, plan))
    with Records(folder) as records:
        records.append(header)


def run_trials(
    plan: Plan,
    checkpoints: Mapping[str, Path],
    records: Records,
    progress: Progress,
    past: RunRecords,
    enough: Callable[[int], str | None],
) -> None:
    """Run every trial in every round and append what it measures; a failed trial is a record, too.

    What `past` has measured is not run again; what failed in it is. After each round `enough` is asked with its
    number, and says why no other is needed, or None: but not of rounds that others followed already.
    """
    done = past.settled
    latest = max((record.round for record in past.measured), default=0)
    for number in range(past.rounds_due):
        order = list(plan.trials)
        random.Random(f"{plan.experiment.seed}/order/{number}").shuffle(order)
        for spec in order:
            if (number, spec.label) not in done:
                _run_one(Trial(plan, spec, checkpoints, number), records, progress)
        if past.stop is None and number >= latest and (reason := enough(number)):
            records.append(Stop(round=number, reason=reason))
            return


def _run_one(trial: Trial, records: Records, progress: Progress) -> None:
    number, label, failure = trial.number, trial.spec.label, None
    progress.trial_started(number, label)
    records.append(Begin(round=number, trial=label))
    try:
        run_trial(trial, records, progress.requests_done)
    except TrialFailed as error:
        failure = str(error)
        records.append(Failure(round=number, trial=label, reason=failure))
    progress.trial_ended(failure)


def _model_mib(checkpoints: Mapping[str, Path], dtype: str) -> dict[str, float]:
    """MiB of each model's weights in that dtype; one that is not known counts as float32, until servers tell."""
    width = BYTES.get(dtype, BYTES["float32"])
    return {model_id: checkpoint.size(path, width) / MIB for model_id, path in checkpoints.items()}


def _header(plan: Plan, checkpoints: Mapping[str, Path], digests: Mapping[str, str], written: str) -> RunHeader:
    """All that a report needs to know of the run, so that the samples speak for themselves."""
    experiment = plan.experiment
    workload = experiment.workload.model_dump(mode="json", exclude_none=True) if experiment.workload else None
    return RunHeader(
        experiment_sha256=written,
        schema=SCHEMA,
        experiment=experiment.name,
        question=plan.question,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        rounds=experiment.repeats,
        page_cache=experiment.page_cache,
        batching=BatchingSpec.model_validate(experiment.batching.model_dump()) if experiment.batching else "off",
        workload=None if workload is None else WorkloadSpec.model_validate(workload),
        most_labels=MOST_LABELS,
        texts=sha256("\n".join(plan.texts).encode()).hexdigest(),
        slo=experiment.slo,
        precision=experiment.precision,
        cost=CostSpec.model_validate(experiment.cost.model_dump(mode="json")),
        rate=experiment.rate,
        limit=LimitSpec(memory_mib=experiment.limit.memory / MIB) if experiment.limit else None,
        plugins=experiment.plugins,
        models={
            model_id: ModelSpec(reference=reference, sha256=digests[model_id])
            for model_id, reference in experiment.models.items()
        },
        trials=[_trial(plan, trial, checkpoints) for trial in plan.trials],
    )


def _trial(plan: Plan, trial: TrialPlan, checkpoints: Mapping[str, Path]) -> TrialSpec:
    mib = _model_mib(checkpoints, trial.dtype)
    return TrialSpec(
        label=trial.label,
        strategy=trial.choice.strategy,
        route=plan.plugins.strategy(trial.choice.strategy).route,
        options=trial.choice.options,
        loader=trial.choice.loader.name,
        loader_options=trial.choice.loader.options,
        dtype=trial.dtype,
        weights_mib=sum(mib.values()),
        model_mib=mib,
    )
