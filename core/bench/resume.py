"""What a folder of results keeps of its experiment, so that its run can go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from ..errors import ResultsError
from .experiment import Plan, load_experiment

EXPERIMENT = "experiment.yaml"


def write_experiment(folder: Path, plan: Plan) -> str:
    """Write the experiment as resolved, all defaults and overrides in it and its paths absolute; its SHA-256.

    It is an experiment itself: it can be run again.
    """
    resolved = plan.experiment.model_dump(mode="json") | {"texts": list(plan.texts)}
    resolved["batching"] = resolved["batching"] or "off"
    resolved = {key: value for key, value in resolved.items() if value is not None}
    text = f"# {plan.question}\n{yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True)}".encode()
    (folder / EXPERIMENT).write_bytes(text)
    return sha256(text).hexdigest()


def plan_of(folder: Path, records: Sequence[Mapping[str, Any]]) -> Plan:
    """The plan of the run that wrote `records`. Raises ResultsError where the folder no longer holds it.

    Raises ResidencyError, as for any experiment, where a model, a plugin or a file of it has gone.
    """
    try:
        written = (folder / EXPERIMENT).read_bytes()
    except OSError as error:
        raise ResultsError(f"{folder} cannot be resumed: {EXPERIMENT} cannot be read ({error.strerror}).") from error
    if sha256(written).hexdigest() != records[0].get("experiment_sha256"):
        raise ResultsError(f"{folder} cannot be resumed: its {EXPERIMENT} was changed; run the experiment anew.")
    return load_experiment(folder / EXPERIMENT)


def check_checkpoints(folder: Path, records: Sequence[Mapping[str, Any]], digests: Mapping[str, str]) -> None:
    """Raises ResultsError where a model is another one than in the rounds that there are; `digests` by model id."""
    for model_id, model in records[0]["models"].items():
        if digests[model_id] != model["sha256"]:
            raise ResultsError(
                f"{folder} cannot be resumed: the checkpoint of model '{model_id}' ({model['reference']}) has changed;"
                " run the experiment anew."
            )
