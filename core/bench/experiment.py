"""An experiment's YAML, strict, and the plan of trials that it stands for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from ..checkpoints.references import anchor
from ..config.choices import (
    STRICT,
    Batching,
    BatchingChoice,
    Cost,
    Duration,
    Fraction,
    ModelId,
    Reference,
    Size,
    StrategyChoice,
    matching,
)
from ..config.file_kinds import check_kind
from ..config.options import in_seconds
from ..config.strict_yaml import MAX_BYTES, Document, read
from ..config.wrong_values import wrong
from ..errors import OptionError, ResidencyError, YamlError
from ..plugins import Plugins, load_plugins
from ..system.files import anchored, read_text
from .texts import Texts, read_texts
from .traffic import Traffic, resolved
from .workload import MAX_REQUESTS, Rate, Workload

FEWEST_ROUNDS = 5  # after which a run may stop early
HAS_A_RATE = "--rate: the workload of this experiment has a rate of its own, for which the card answers; leave it out."

Percentile = Annotated[str, matching(r"p[1-9][0-9]?(\.[0-9]{1,4})?", "a percentile such as p50, p99 or p99.9")]


class Limit(BaseModel):
    """What a server may take."""

    model_config = STRICT

    memory: Annotated[Size, Field(gt=0, description="resident, start-up included")]


class Experiment(BaseModel):
    """The keys of an experiment's YAML file."""

    model_config = STRICT

    name: ModelId
    models: Annotated[dict[ModelId, Reference], Field(min_length=1)] = {"embedded": "embedded"}
    strategies: Annotated[list[StrategyChoice], Field(min_length=1)]
    texts: Texts
    repetitions: Annotated[int, Field(ge=1, le=MAX_REQUESTS)] | None = 10
    workload: Annotated[Workload | None, Field(description="traffic, in place of repetitions")] = None
    repeats: Annotated[int, Field(ge=1, le=1000)] = 5
    precision: Annotated[Fraction | None, Field(description="end once the intervals are no wider, relatively")] = None
    slo: Annotated[dict[Percentile, Annotated[Duration, Field(gt=0)]], Field(min_length=1)] | None = None
    cost: Annotated[Cost, Field(description="prices of memory, processor and waiting")] = Cost()
    rate: Annotated[Rate | None, Field(description="of requests, for which to advise; a workload may have its own")] = (
        None
    )
    limit: Annotated[Limit | None, Field(description="what goes over it is not recommended")] = None
    plugins: list[str] = []
    seed: int = 0
    memory_after_each: Annotated[bool, Field(description="read the memory after each request, which takes time")] = (
        False
    )
    page_cache: Annotated[
        Literal["warm", "cold"], Field(description="cold: before each load, the checkpoint is dropped from it")
    ] = "warm"
    batching: BatchingChoice = Batching()
    timeout: Annotated[Duration, Field(gt=0, le=3600, description="for start-up and for each answer")] = 120.0


@dataclass(frozen=True)
class Overrides:
    """What the command line says in place of the file."""

    repetitions: int | None = None
    repeats: int | None = None
    strategies: Sequence[str] | None = None
    models: dict[str, str] | None = None
    rate: float | None = None


@dataclass(frozen=True)
class TrialPlan:
    """One strategy with its loader and options, under one label."""

    label: str
    choice: StrategyChoice
    dtype: str


@dataclass(frozen=True)
class Plan:
    """An experiment with everything resolved that can be wrong in it, but no checkpoint."""

    question: str
    experiment: Experiment
    texts: tuple[str, ...]
    trials: tuple[TrialPlan, ...]
    plugins: Plugins
    traffic: Traffic | None = None  # else each text with each model, `repetitions` times

    @property
    def requests(self) -> int | None:
        """In one trial, without the first request; under a workload about so many, or None where answers decide."""
        if self.traffic is not None:
            return self.traffic.requests
        return len(self.texts) * len(self.experiment.models) * (self.experiment.repetitions or 0)


def batching_of(plan: Plan) -> dict[str, Any] | str:
    """As a served app's settings, and the results, say it."""
    batching = plan.experiment.batching
    return batching.model_dump() if batching else "off"


def load_experiment(path: Path, overrides: Overrides | None = None) -> Plan:
    """Raises ResidencyError, whose sentence names file, line, column and key."""
    document = read(path)
    check_kind(document, "experiment")
    experiment = _override(_one_form(document, document.validate(Experiment)), overrides or Overrides())
    folder = path.resolve().parent
    models = {}
    for model_id, reference in experiment.models.items():
        with _at(document, "models", model_id):
            models[model_id] = anchor(reference, folder)
    with _at(document, "plugins"):
        files = [str(anchored(name, folder)) if name.endswith(".py") else name for name in experiment.plugins]
        plugins = load_plugins(files)
    experiment = experiment.model_copy(update={"models": models, "plugins": files})
    trials = _trials(document, experiment, plugins)
    texts = _texts(document, experiment.texts, folder)
    traffic = resolved(document, experiment.workload, list(experiment.models), len(texts), experiment.seed, folder)
    if traffic is not None:
        experiment = experiment.model_copy(update={"workload": traffic.workload})
    plan = Plan(_question(path), experiment, texts, trials, plugins, traffic)
    if (plan.requests or 0) > MAX_REQUESTS:
        raise document.error(
            ("repetitions",),
            f"{len(plan.texts)} texts × {len(experiment.models)} models × {experiment.repetitions} repetitions are"
            f" over the limit of {MAX_REQUESTS} requests in a trial.",
        )
    if experiment.precision is not None and experiment.repeats < FEWEST_ROUNDS:
        raise document.error(
            ("precision",), f"needs at least {FEWEST_ROUNDS} rounds; set 'repeats' to the most that it may take."
        )
    return _select(plan, overrides.strategies if overrides else None)


def _one_form(document: Document, experiment: Experiment) -> Experiment:
    """Either repetitions or a workload, whose requests are not held up for anything; and one rate at most."""
    if experiment.rate is not None and experiment.workload is not None and experiment.workload.states_a_rate:
        raise document.error(
            ("rate",), "does not go with a workload, which has a rate of its own; leave one of them out."
        )
    if experiment.workload is None:
        if experiment.repetitions is None:
            raise document.error(("repetitions",), "must be a number, unless there is a workload.")
        return experiment
    if document.value.get("repetitions") is not None:
        raise document.error(("repetitions",), "goes without a workload only, which says how many requests there are.")
    if experiment.memory_after_each or experiment.page_cache == "cold":
        key = "memory_after_each" if experiment.memory_after_each else "page_cache"
        raise document.error((key,), "would hold up the requests of a workload; use 'repetitions' in its place.")
    return experiment.model_copy(update={"repetitions": None})


@contextmanager
def _at(document: Document, *where: str | int) -> Iterator[None]:
    """Give a failure its place in the file."""
    try:
        yield
    except OptionError as error:
        raise document.error((*where, error.option), str(error)) from error
    except ResidencyError as error:
        raise document.error(where, str(error)) from error


def _override(experiment: Experiment, overrides: Overrides) -> Experiment:
    if experiment.workload is not None and overrides.repetitions is not None:
        raise YamlError("--repetitions: this experiment has a workload, which says how many requests there are.")
    if experiment.workload is not None and experiment.workload.states_a_rate and overrides.rate is not None:
        raise YamlError(HAS_A_RATE)
    named = {
        "repetitions": overrides.repetitions,
        "repeats": overrides.repeats,
        "rate": overrides.rate,
        "models": {**experiment.models, **overrides.models} if overrides.models else None,
    }
    for model_id in overrides.models or {}:
        if model_id not in experiment.models:
            known = ", ".join(experiment.models)
            raise YamlError(f"--model: this experiment has no model '{model_id[:64]}'. It has: {known}.")
    changes = {key: value for key, value in named.items() if value is not None}
    try:
        return Experiment.model_validate({**dict(experiment), **changes})
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        flag = {"models": "model"}.get(key := str(detail["loc"][0]), key)
        raise YamlError(f"--{flag}: {wrong(detail, Experiment.model_fields[key])}.") from error


def _trials(document: Document, experiment: Experiment, plugins: Plugins) -> tuple[TrialPlan, ...]:
    trials: list[TrialPlan] = []
    loaders = {(choice.loader.name, str(choice.loader.options.get("dtype"))) for choice in experiment.strategies}
    for i, choice in enumerate(experiment.strategies):
        where = ("strategies", i)
        with _at(document, *where, "strategy"):
            strategy = plugins.strategy(choice.strategy)
        with _at(document, *where, "options"):
            options = in_seconds(choice.options, strategy.validate(choice.options))
        with _at(document, *where, "loader"):
            loader = plugins.loader(choice.loader.name)
            read = loader.validate(choice.loader.options)
        chosen = choice.loader.model_copy(update={"options": in_seconds(choice.loader.options, read)})
        choice = choice.model_copy(update={"options": options, "loader": chosen})
        dtype = str(getattr(loader.options(**read), "dtype", "float32"))
        label = choice.shown_as(dtype, several_loaders=len(loaders) > 1)
        if label in [trial.label for trial in trials]:
            raise document.error(where, f"'{label}' is there already; give each a 'label' of its own.")
        trials.append(TrialPlan(label, choice, dtype))
    return tuple(trials)


def _texts(document: Document, texts: Texts, folder: Path) -> tuple[str, ...]:
    if texts.inline is not None:
        return tuple(texts.inline)
    with _at(document, "texts", "file"):
        return read_texts(anchored(texts.file or "", folder))


def _question(path: Path) -> str:
    """The file's first line, a comment that says what the experiment answers."""
    line = next(iter(read_text(path, MAX_BYTES).splitlines()), "").strip()  # at whatever ends a line for YAML
    return line.removeprefix("#").strip() if line.startswith("#") else ""


def _select(plan: Plan, names: Sequence[str] | None) -> Plan:
    """Only the trials that `names` picks, each the label of a trial or the name of its strategy."""
    if names is None:
        return plan
    for name in names:
        if not any(name in (trial.label, trial.choice.strategy) for trial in plan.trials):
            known = ", ".join(trial.label for trial in plan.trials)
            raise YamlError(f"--strategies: this experiment has no '{name}'. It has: {known}.")
    chosen = tuple(t for t in plan.trials if t.label in names or t.choice.strategy in names)
    experiment = plan.experiment.model_copy(update={"strategies": [trial.choice for trial in chosen]})
    return replace(plan, experiment=experiment, trials=chosen)
