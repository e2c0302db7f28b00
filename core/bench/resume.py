"""The copy of an experiment in its folder of results, from which a run can be resumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from ..config.choices import LoaderChoice
from ..config.engines import EngineChoice
from ..config.strict_yaml import read
from ..errors import ResultsError
from ..results.header import EngineSpec, RunHeader, TrialSpec
from .cluster import TrialChoice
from .engines import written_engine
from .experiment import ResolvedExperiment, ResolvedTrial, load_experiment
from .texts import json_lines

EXPERIMENT = "experiment.yaml"
TEXTS = "texts.jsonl"
START_ENGINES = "--start-engines"


def write_experiment(folder: Path, resolved: ResolvedExperiment) -> str:
    """Write the validated experiment with all defaults and overrides, and absolute paths. Returns its SHA-256."""
    keys = resolved.experiment.model_dump(mode="json")
    keys["strategies"] = [_shortest_form(choice) for choice in resolved.experiment.strategies]
    keys["batching"] = keys["batching"] or "off"
    keys["models"] = written_models(resolved)
    keys["requests"] = resolved.experiment.requests and resolved.experiment.requests.written
    keys = {key: value for key, value in keys.items() if value is not None}
    return write_resolved(folder / EXPERIMENT, resolved.question, keys, resolved.texts)


def written_models(resolved: ResolvedExperiment) -> dict[str, Any]:
    """The section `models` of an experiment."""
    models = resolved.experiment.models
    return {id_: written_engine(model) if isinstance(model, EngineChoice) else model for id_, model in models.items()}


def write_resolved(path: Path, question: str, keys: Mapping[str, Any], texts: Sequence[str]) -> str:
    """Write an experiment that can be run, and any texts to a second file. Returns the SHA-256 of both.

    Raises ResidencyError if the file is too large to be read again.
    """
    written = {**keys, "texts": {"file": TEXTS}} if texts else keys
    yaml_text = yaml.safe_dump(written, sort_keys=False, allow_unicode=True)
    path.write_bytes(f"# {question}\n{yaml_text}".encode())
    if texts:
        path.with_name(TEXTS).write_bytes("".join(json_lines(texts)).encode())
    read(path)
    return _sha256(path)


def _shortest_form(choice: TrialChoice) -> str | dict[str, Any]:
    """The shortest YAML form, so that a file within the size limit stays within it when it is written again."""
    keys: dict[str, Any] = choice.model_dump(exclude_defaults=True)
    if options := choice.loader.options:
        flat = {"name": choice.loader.name, **options}
        keys["loader"] = {"name": choice.loader.name, "options": options} if "options" in flat else flat
    elif "loader" in keys:
        keys["loader"] = choice.loader.name
    if choice.cluster:
        keys["cluster"] = choice.cluster.written
    return choice.strategy if len(keys) == 1 else keys


def _sha256(path: Path) -> str:
    """The digest of an experiment and its texts, which older versions wrote into the experiment itself."""
    texts = path.with_name(TEXTS)
    return sha256(path.read_bytes() + (texts.read_bytes() if texts.exists() else b"")).hexdigest()


def read_experiment(folder: Path, header: RunHeader) -> ResolvedExperiment:
    """The experiment of the run with that header.

    Raises ResultsError if the folder's copy is missing or was changed, and ResidencyError, as for any experiment, if a
    model, a plugin or a file no longer exists.
    """
    try:
        digest = _sha256(folder / EXPERIMENT)
    except OSError as error:
        name = Path(error.filename or EXPERIMENT).name
        raise ResultsError(f"{folder} cannot be resumed: {name} cannot be read ({error.strerror}).") from error
    if digest != header.experiment_sha256:
        raise ResultsError(
            f"{folder} cannot be resumed: its {EXPERIMENT} or {TEXTS} was changed; run the experiment again."
        )
    resolved = load_experiment(folder / EXPERIMENT)
    trials = (_restore_trial(trial, spec) for trial, spec in zip(resolved.trials, header.trials, strict=True))
    return replace(resolved, trials=tuple(trials))


def _restore_trial(trial: ResolvedTrial, spec: TrialSpec) -> ResolvedTrial:
    """The trial with the label and the loader that the run began with.

    The label may differ now, because it depends on the other trials, which --strategies may have left out. The loader
    may differ, because another version may have another default.
    """
    loader = LoaderChoice(name=spec.loader, options=spec.loader_options)
    choice = trial.choice.model_copy(update={"loader": loader})
    return ResolvedTrial(spec.label, choice, spec.dtype)


def check_commands(folder: Path, header: RunHeader, *, may_start: bool) -> None:
    """Raise ResultsError if the run's experiment starts programs, unless they may be started."""
    commands = [f"'{id_}' ({model.reference})" for id_, model in header.models.items() if model.engine]
    if commands and not may_start:
        raise ResultsError(
            f"The experiment of {folder} starts programs: {', '.join(commands)}. If you trust them, repeat the command"
            f" with {START_ENGINES}."
        )


def differing_model(header: RunHeader, digests: Mapping[str, str]) -> str | None:
    """The id of a model whose checkpoint is not that of the run, or of an engine one of whose files has another size;
    None if there is none. `digests` are by model id.
    """
    for model_id, model in header.models.items():
        if digests[model_id] != model.sha256 or (model.engine and not _has_files(model.engine)):
            return model_id
    return None


def _has_files(engine: EngineSpec) -> bool:
    """Whether all files that the run recorded are there in the same size."""
    paths = ((Path(name), size) for name, size in engine.files.items())
    return all(path.is_file() and path.stat().st_size == size for path, size in paths)


def check_checkpoints(folder: Path, header: RunHeader, digests: Mapping[str, str]) -> None:
    """Raise ResultsError if a checkpoint is not the one of the measured rounds. `digests` are by model id."""
    if model_id := differing_model(header, digests):
        reference = header.models[model_id].reference
        what = "a file" if header.models[model_id].engine else "the checkpoint"
        raise ResultsError(
            f"{folder} cannot be resumed: {what} of model '{model_id}' ({reference}) has changed;"
            " run the experiment again."
        )
