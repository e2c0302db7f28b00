"""Running all trials of an experiment in interleaved rounds."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import Protocol

from ..checkpoints import checkpoint
from ..checkpoints.dtypes import BYTES, converted_directory
from ..checkpoints.references import describe_source, resolve
from ..config.engines import EngineChoice
from ..errors import ModelReferenceError, TrialFailed
from ..results.folder import RecordWriter, RunRecords
from ..results.header import SCHEMA, BatchingSpec, CostSpec, LimitSpec, ModelSpec, RunHeader, TrialSpec, WorkloadSpec
from ..results.records import Begin, Failure, NarrowIntervals, Stop
from ..system.page_cache import reread
from .client import MOST_LABELS
from .cluster import check_installed
from .convert import convert_checkpoints
from .engines import engine_spec, engines_of, named_files
from .environment import describe_machine
from .experiment import ResolvedExperiment, ResolvedTrial
from .resume import write_experiment
from .trial import Trial, run_trial

MIB = 1 << 20


class Progress(Protocol):
    """Callbacks that report the progress of a run."""

    def trial_started(self, number: int, label: str) -> None:
        """A trial starts. `number` is that of the round, from 0."""

    def requests_done(self, count: int) -> None:
        """`count` more requests were answered."""

    def trial_ended(self, failure: str | None) -> None:
        """The trial ended. `failure` is the reason if it failed."""


def prepare(resolved: ResolvedExperiment) -> tuple[dict[str, Path], dict[str, str]]:
    """Resolve and convert all checkpoints. Returns their directories, and the digests of all models, by model id.

    An engine has no directory; its digest is that of its settings.

    Afterwards the weights are in the page cache in large pages, so that all trials find the same state. Raises
    ModelReferenceError, and SettingsError if what a trial needs is not installed.
    """
    for trial in resolved.trials:
        check_installed(trial.label, trial.choice)
    checkpoints: dict[str, Path] = {}
    engines = engines_of(resolved.experiment.models)
    for model_id, reference in resolved.experiment.models.items():
        if isinstance(reference, EngineChoice):
            continue
        try:
            directory = checkpoints[model_id] = resolve_in_process(reference)
        except ModelReferenceError as error:
            raise ModelReferenceError(f"Model '{model_id}': {error}") from error
        if resolved.experiment.page_cache == "cold" and list(checkpoints.values()).count(directory) > 1:
            raise ModelReferenceError(
                f"Model '{model_id}' has the same checkpoint as another model, which may keep it in the page cache:"
                " with 'page_cache: cold', give each model its own checkpoint."
            )
    convert_checkpoints(resolved, list(checkpoints.values()))
    for directory in checkpoints.values():
        copies = {converted_directory(directory, trial.dtype) for trial in resolved.trials}
        for folder in (directory, *(copy for copy in copies if copy.is_dir())):
            for file in checkpoint.weights(folder):
                reread(file)
    for engine in engines.values():
        for file in named_files(engine):
            reread(file)
    digests = {model_id: checkpoint.cached_sha256(directory) for model_id, directory in checkpoints.items()}
    return checkpoints, digests | {model_id: engine.identity for model_id, engine in engines.items()}


def locate_models(resolved: ResolvedExperiment) -> dict[str, str]:
    """Phrases that say where each model's checkpoint is, or will come from. Writes and downloads nothing.

    Raises ModelReferenceError for a checkpoint that a run would not find.
    """
    sources = {}
    for model_id, reference in resolved.experiment.models.items():
        if isinstance(reference, EngineChoice):
            sources[model_id] = "an engine"
            continue
        try:
            sources[model_id] = describe_source(reference)
        except ModelReferenceError as error:
            raise ModelReferenceError(f"Model '{model_id}': {error}") from error
    return sources


def resolve_in_process(reference: str) -> Path:
    """The checkpoint directory of the reference. Uses a separate process if torch may be imported.

    This process must not map libraries, because the pages that it shared with a server would reduce the server's PSS.
    """
    if not reference.startswith("synthetic:"):
        return resolve(reference)
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(resolve, reference).result()


def write_header(
    resolved: ResolvedExperiment, checkpoints: Mapping[str, Path], digests: Mapping[str, str], folder: Path
) -> None:
    """Write experiment.yaml and the `run` record, before the first trial."""
    header = _header(resolved, checkpoints, digests, write_experiment(folder, resolved))
    with RecordWriter(folder) as records:
        records.append(header)


def run_trials(
    resolved: ResolvedExperiment,
    checkpoints: Mapping[str, Path],
    records: RecordWriter,
    progress: Progress,
    past: RunRecords,
    reason_to_stop: Callable[[int], NarrowIntervals | str | None],
) -> None:
    """Run all trials in all rounds, and append their records. A trial that fails leaves a record, too.

    Trials that finished in `past` are not run again, those that failed are. After each round, unless later ones were
    measured in `past`, `reason_to_stop` gets the round's number. It returns why no further round is needed, or None.
    """
    done = past.finished_trials
    latest = max((record.round for record in past.measured), default=0)
    for number in range(past.rounds_due):
        finished = {label for n, label in done if n == number}
        if number in past.machines and len(finished) < len(resolved.trials):
            finished = set()  # trials are compared within a round, so the whole round is run here
            records.append(describe_machine(number))
        run_round(resolved, number, checkpoints, records, progress, finished)
        if past.stop is None and number >= latest and (reason := reason_to_stop(number)):
            records.append(Stop(round=number, reason=reason))
            return


def run_round(
    resolved: ResolvedExperiment,
    number: int,
    checkpoints: Mapping[str, Path],
    records: RecordWriter,
    progress: Progress,
    done: Collection[str] = (),
) -> None:
    """Run all trials of a round, from 0, except those whose labels are `done`, and append their records."""
    order = list(resolved.trials)
    random.Random(f"{resolved.experiment.seed}/order/{number}").shuffle(order)
    for spec in order:
        if spec.label not in done:
            _run_one(Trial(resolved, spec, checkpoints, number), records, progress)


def _run_one(trial: Trial, records: RecordWriter, progress: Progress) -> None:
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
    """MiB of each model's weights in that dtype. An unknown dtype counts as float32 until a server reports sizes."""
    width = BYTES.get(dtype, BYTES["float32"])
    return {model_id: checkpoint.size(path, width) / MIB for model_id, path in checkpoints.items()}


def _header(
    resolved: ResolvedExperiment, checkpoints: Mapping[str, Path], digests: Mapping[str, str], written: str
) -> RunHeader:
    """The `run` record, with all that a report needs besides the measurements."""
    experiment = resolved.experiment
    workload = experiment.workload.model_dump(mode="json", exclude_none=True) if experiment.workload else None
    return RunHeader(
        experiment_sha256=written,
        schema=SCHEMA,
        experiment=experiment.name,
        question=resolved.question,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        rounds=experiment.repeats,
        page_cache=experiment.page_cache,
        batching=BatchingSpec.model_validate(experiment.batching.model_dump()) if experiment.batching else "off",
        workload=None if workload is None else WorkloadSpec.model_validate(workload),
        most_labels=MOST_LABELS,
        texts=sha256(resolved.question_lines.encode()).hexdigest(),
        slo=experiment.slo,
        precision=experiment.precision,
        cost=CostSpec.model_validate(experiment.cost.model_dump(mode="json")),
        rate=experiment.rate,
        limit=LimitSpec(memory_mib=experiment.limit.memory / MIB) if experiment.limit else None,
        plugins=experiment.plugins,
        models={model_id: _model_spec(model, digests[model_id]) for model_id, model in experiment.models.items()},
        trials=[_trial_spec(resolved, trial, checkpoints) for trial in resolved.trials],
    )


def _model_spec(model: str | EngineChoice, digest: str) -> ModelSpec:
    if isinstance(model, EngineChoice):
        return ModelSpec(reference=str(model), sha256=digest, engine=engine_spec(model))
    return ModelSpec(reference=model, sha256=digest)


def _trial_spec(resolved: ResolvedExperiment, trial: ResolvedTrial, checkpoints: Mapping[str, Path]) -> TrialSpec:
    mib = _model_mib(checkpoints, trial.dtype)
    for model_id, engine in engines_of(resolved.experiment.models).items():
        nbytes = engine.fixed_bytes or sum(path.stat().st_size for path in named_files(engine))
        mib[model_id] = nbytes / MIB  # until its server reports what it measured
    return TrialSpec(
        label=trial.label,
        strategy=trial.choice.strategy,
        route=resolved.plugins.strategy(trial.choice.strategy).route,
        options=trial.choice.options,
        loader=trial.choice.loader.name,
        loader_options=trial.choice.loader.options,
        dtype=trial.dtype,
        weights_mib=sum(mib.values()),
        model_mib=mib,
        **({"cluster": trial.choice.cluster.spec} if trial.choice.cluster else {}),
    )
