"""What a folder of results keeps of its experiment, so that its run can go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from ..config.choices import LoaderChoice, StrategyChoice
from ..config.strict_yaml import read
from ..errors import ResultsError
from ..results.header import RunHeader, TrialSpec
from .experiment import Plan, TrialPlan, load_experiment
from .texts import json_lines

EXPERIMENT = "experiment.yaml"
TEXTS = "texts.jsonl"


def write_experiment(folder: Path, plan: Plan) -> str:
    """Write the experiment as resolved, all defaults and overrides in it and its paths absolute; its SHA-256."""
    keys = plan.experiment.model_dump(mode="json")
    keys["strategies"] = [_short(choice) for choice in plan.experiment.strategies]
    keys["batching"] = keys["batching"] or "off"
    keys = {key: value for key, value in keys.items() if value is not None}
    return write_resolved(folder / EXPERIMENT, plan.question, keys, plan.texts)


def write_resolved(path: Path, question: str, keys: Mapping[str, Any], texts: Sequence[str]) -> str:
    """Write an experiment that can be run, and its texts beside it, for which YAML has no room; the SHA-256 of both.

    Raises ResidencyError where the file is too large to be read again.
    """
    yaml_text = yaml.safe_dump({**keys, "texts": {"file": TEXTS}}, sort_keys=False, allow_unicode=True)
    path.write_bytes(f"# {question}\n{yaml_text}".encode())
    path.with_name(TEXTS).write_bytes("".join(json_lines(texts)).encode())
    read(path)
    return _sha256(path)


def _short(choice: StrategyChoice) -> str | dict[str, Any]:
    """The shortest form, so that what could be read has as much room when it is written again."""
    found: dict[str, Any] = choice.model_dump(exclude_defaults=True)
    if options := choice.loader.options:
        flat = {"name": choice.loader.name, **options}
        found["loader"] = {"name": choice.loader.name, "options": options} if "options" in flat else flat
    elif "loader" in found:
        found["loader"] = choice.loader.name
    return choice.strategy if len(found) == 1 else found


def _sha256(path: Path) -> str:
    """Of an experiment and the texts beside it; a run of an older version has its texts in the experiment."""
    texts = path.with_name(TEXTS)
    return sha256(path.read_bytes() + (texts.read_bytes() if texts.exists() else b"")).hexdigest()


def plan_of(folder: Path, header: RunHeader) -> Plan:
    """The plan of the run with that header. Raises ResultsError where the folder no longer holds it.

    Raises ResidencyError, as for any experiment, where a model, a plugin or a file of it has gone.
    """
    try:
        digest = _sha256(folder / EXPERIMENT)
    except OSError as error:
        name = Path(error.filename or EXPERIMENT).name
        raise ResultsError(f"{folder} cannot be resumed: {name} cannot be read ({error.strerror}).") from error
    if digest != header.experiment_sha256:
        raise ResultsError(
            f"{folder} cannot be resumed: its {EXPERIMENT} was changed, or the {TEXTS} beside it;"
            " run the experiment anew."
        )
    plan = load_experiment(folder / EXPERIMENT)
    trials = (_as_begun(trial, spec) for trial, spec in zip(plan.trials, header.trials, strict=True))
    return replace(plan, trials=tuple(trials))


def _as_begun(trial: TrialPlan, spec: TrialSpec) -> TrialPlan:
    """With the run's label, since the experiment may have lost some of its loaders to --strategies, and with the run's
    loader, since where none is named another version may have had another default.
    """
    loader = LoaderChoice(name=spec.loader, options=spec.loader_options)
    choice = trial.choice.model_copy(update={"loader": loader})
    return TrialPlan(spec.label, choice, spec.dtype)


def check_checkpoints(folder: Path, header: RunHeader, digests: Mapping[str, str]) -> None:
    """Raises ResultsError where a model is another one than in the rounds that there are; `digests` by model id."""
    for model_id, model in header.models.items():
        if digests[model_id] != model.sha256:
            raise ResultsError(
                f"{folder} cannot be resumed: the checkpoint of model '{model_id}' ({model.reference}) has changed;"
                " run the experiment anew."
            )
