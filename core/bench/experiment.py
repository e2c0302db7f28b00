"""The YAML file of an experiment, and its validated form with resolved trials, texts and traffic."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from ..checkpoints.references import resolve_reference
from ..config.choices import (
    STRICT,
    Batching,
    BatchingChoice,
    Cost,
    Duration,
    Fraction,
    ModelId,
    Size,
    matching,
)
from ..config.engines import EngineChoice, ModelChoice
from ..config.file_kinds import check_kind
from ..config.options import in_seconds
from ..config.strict_yaml import MAX_BYTES, Document, read
from ..config.wrong_values import explain
from ..errors import OptionError, ResidencyError, YamlError
from ..plugins import Plugins, load_plugins
from ..system.files import read_text, resolve_path
from .cluster import TrialChoice
from .requests import Message, Requests
from .texts import Texts, json_lines, read_texts
from .traffic import Traffic, resolve_traffic
from .workload import MAX_REQUESTS, Rate, Workload

FEWEST_ROUNDS = 5  # after which a run may stop early
HAS_A_RATE = "--rate: the workload of this experiment has its own rate, for which the card answers; leave the flag out."

Percentile = Annotated[str, matching(r"p[1-9][0-9]?(\.[0-9]{1,4})?", "a percentile such as p50, p99 or p99.9")]


class Limit(BaseModel):
    """Limits of a server's resources."""

    model_config = STRICT

    memory: Annotated[Size, Field(gt=0)]
    """Resident memory at its most, start-up included."""


class Experiment(BaseModel):
    """The keys of an experiment's YAML file. The docstrings are the reference in docs/experiments.md."""

    model_config = STRICT

    name: ModelId
    """The name of the experiment, and of its folder under `results`."""
    models: Annotated[dict[ModelId, ModelChoice], Field(min_length=1)] = {"embedded": "embedded"}
    """Model ids with their references, or with a mapping that has `run`: an engine."""
    strategies: Annotated[list[TrialChoice], Field(min_length=1)]
    """A list of strategies. Each is a name, or a mapping with `strategy`, `options`, `loader`, `label` and
    `cluster`.
    """
    texts: Texts | None = None
    """A list of texts, or `{file: path}`. Give either this or `requests`."""
    requests: Requests | None = None
    """A list of `{path, body}`, or `{chat: [prompts]}`, in place of texts."""
    repetitions: Annotated[int, Field(ge=1, le=MAX_REQUESTS)] | None = 10
    """How often each text or request is sent to each model in each round, one request after the other."""
    workload: Workload | None = None
    """Traffic, in place of `repetitions`."""
    repeats: Annotated[int, Field(ge=1, le=1000)] = 5
    """Rounds."""
    precision: Fraction | None = None
    """End the run when the intervals are this narrow, such as `5%`."""
    slo: Annotated[dict[Percentile, Annotated[Duration, Field(gt=0)]], Field(min_length=1)] | None = None
    """Latency targets such as `{p99: 200ms}`."""
    cost: Cost = Cost()
    """The prices of memory, CPU time and waiting. The defaults are AWS Fargate's unit prices."""
    rate: Rate | None = None
    """A request rate such as `200/h`. The card answers for this rate. A workload with a rate of its own takes no
    `rate`.
    """
    limit: Limit | None = None
    """`{memory: 300MiB}`: do not recommend a trial that held more."""
    plugins: list[str] = []
    """Modules, or `.py` files beside this file."""
    seed: int = 0
    """The seed of every shuffle."""
    memory_after_each: bool = False
    """Read the memory after each request, and say whether the memory of a freed model comes back."""
    page_cache: Literal["warm", "cold"] = "warm"
    """`cold`: drop the checkpoint from the page cache before the server starts, and before each request that will load
    it. The trial fails if less than 99 % of it is gone.
    """
    batching: BatchingChoice = Batching()
    """As in the settings of a server. The summary says which was used."""
    timeout: Annotated[Duration, Field(gt=0, le=3600)] = 120.0
    """For start-up, and for each answer."""


@dataclass(frozen=True)
class Overrides:
    """Values of the command line that override the file."""

    repetitions: int | None = None
    repeats: int | None = None
    strategies: Sequence[str] | None = None
    models: dict[str, str] | None = None
    rate: float | None = None


@dataclass(frozen=True)
class ResolvedTrial:
    """A trial: one strategy with its loader and validated options, under one label."""

    label: str
    choice: TrialChoice
    dtype: str


@dataclass(frozen=True)
class ResolvedExperiment:
    """A fully validated experiment. Checkpoints are resolved later."""

    question: str
    experiment: Experiment
    texts: tuple[str, ...]
    trials: tuple[ResolvedTrial, ...]
    plugins: Plugins
    traffic: Traffic | None = None  # None: each text is sent to each model `repetitions` times
    messages: tuple[Message, ...] = ()  # in place of texts

    @property
    def questions(self) -> int:
        """How many different texts or requests there are."""
        return len(self.texts) or len(self.messages)

    @property
    def question_lines(self) -> str:
        """All of them, as text that differs if one of them does."""
        if self.messages:
            return "".join(json_lines([str(message) for message in self.messages]))
        return "\n".join(self.texts)

    @property
    def requests(self) -> int | None:
        """Requests per trial, without the first one. With a workload an estimate, or None if the answers decide."""
        if self.traffic is not None:
            return self.traffic.requests
        return self.questions * len(self.experiment.models) * (self.experiment.repetitions or 0)


def batching_setting(resolved: ResolvedExperiment) -> dict[str, Any] | str:
    """The `batching` section as written to settings and results."""
    batching = resolved.experiment.batching
    return batching.model_dump() if batching else "off"


def load_experiment(path: Path, overrides: Overrides | None = None) -> ResolvedExperiment:
    """The validated experiment of a file. Raises ResidencyError, which names file, line, column and key."""
    document = read(path)
    check_kind(document, "experiment")
    experiment = _override(_apply_workload(document, document.validate(Experiment)), overrides or Overrides())
    folder = path.resolve().parent
    models: dict[str, str | EngineChoice] = {}
    for model_id, model in experiment.models.items():
        with _locate_errors(document, "models", model_id):
            models[model_id] = model if isinstance(model, EngineChoice) else resolve_reference(model, folder)
    with _locate_errors(document, "plugins"):
        files = [str(resolve_path(name, folder)) if name.endswith(".py") else name for name in experiment.plugins]
        plugins = load_plugins(files)
    experiment = experiment.model_copy(update={"models": models, "plugins": files})
    trials = _trials(document, experiment, plugins)
    texts, messages = _questions(document, experiment, folder)
    count = len(texts) or len(messages)
    traffic = resolve_traffic(document, experiment.workload, list(experiment.models), count, experiment.seed, folder)
    if traffic is not None:
        experiment = experiment.model_copy(update={"workload": traffic.workload})
    resolved = ResolvedExperiment(_question(path), experiment, texts, trials, plugins, traffic, messages)
    if (resolved.requests or 0) > MAX_REQUESTS:
        what = f"{resolved.questions} {'texts' if texts else 'requests'} × {len(experiment.models)} models"
        raise document.error(
            ("repetitions",),
            f"{what} × {experiment.repetitions} repetitions are over the limit of {MAX_REQUESTS} requests in a trial.",
        )
    if experiment.precision is not None and experiment.repeats < FEWEST_ROUNDS:
        raise document.error(
            ("precision",), f"needs at least {FEWEST_ROUNDS} rounds; set 'repeats' to the most that the run may take."
        )
    return _select(resolved, overrides.strategies if overrides else None)


def _apply_workload(document: Document, experiment: Experiment) -> Experiment:
    """The experiment, without repetitions if it has a workload. Raises YamlError for keys that exclude each other."""
    if experiment.rate is not None and experiment.workload is not None and experiment.workload.states_a_rate:
        raise document.error(("rate",), "cannot be used with a workload that has its own rate; leave one of them out.")
    if experiment.workload is None:
        if experiment.repetitions is None:
            raise document.error(("repetitions",), "must be a number if there is no workload.")
        return experiment
    if document.value.get("repetitions") is not None:
        raise document.error(("repetitions",), "cannot be used with a workload, which sets the number of requests.")
    if experiment.memory_after_each or experiment.page_cache == "cold":
        key = "memory_after_each" if experiment.memory_after_each else "page_cache"
        raise document.error((key,), "would delay the requests of a workload; use 'repetitions' instead of a workload.")
    return experiment.model_copy(update={"repetitions": None})


@contextmanager
def _locate_errors(document: Document, *where: str | int) -> Iterator[None]:
    """Add the place in the file to errors."""
    try:
        yield
    except OptionError as error:
        raise document.error((*where, error.option), str(error)) from error
    except ResidencyError as error:
        raise document.error(where, str(error)) from error


def _override(experiment: Experiment, overrides: Overrides) -> Experiment:
    if experiment.workload is not None and overrides.repetitions is not None:
        raise YamlError("--repetitions: this experiment has a workload, which sets the number of requests.")
    if experiment.workload is not None and experiment.workload.states_a_rate and overrides.rate is not None:
        raise YamlError(HAS_A_RATE)
    given = {
        "repetitions": overrides.repetitions,
        "repeats": overrides.repeats,
        "rate": overrides.rate,
        "models": {**experiment.models, **overrides.models} if overrides.models else None,
    }
    for model_id in overrides.models or {}:
        if model_id not in experiment.models:
            known = ", ".join(experiment.models)
            raise YamlError(f"--model: this experiment has no model '{model_id[:64]}'. It has: {known}.")
    changes = {key: value for key, value in given.items() if value is not None}
    try:
        return Experiment.model_validate({**dict(experiment), **changes})
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        flag = {"models": "model"}.get(key := str(detail["loc"][0]), key)
        raise YamlError(f"--{flag}: {explain(detail, Experiment.model_fields[key])}.") from error


def _trials(document: Document, experiment: Experiment, plugins: Plugins) -> tuple[ResolvedTrial, ...]:
    trials: list[ResolvedTrial] = []
    loaders = {(choice.loader.name, str(choice.loader.options.get("dtype"))) for choice in experiment.strategies}
    for i, choice in enumerate(experiment.strategies):
        where = ("strategies", i)
        if choice.cluster and experiment.page_cache == "cold":
            why = "because a model may be in memory on one node and requested from another"
            raise document.error((*where, "cluster"), f"cannot be used with 'page_cache: cold', {why}; leave one out.")
        with _locate_errors(document, *where, "strategy"):
            strategy = plugins.strategy(choice.strategy)
        with _locate_errors(document, *where, "options"):
            options = in_seconds(choice.options, strategy.validate(choice.options))
        with _locate_errors(document, *where, "loader"):
            loader = plugins.loader(choice.loader.name)
            loader_options = loader.validate(choice.loader.options)
        chosen = choice.loader.model_copy(update={"options": in_seconds(choice.loader.options, loader_options)})
        choice = choice.model_copy(update={"options": options, "loader": chosen})
        dtype = str(getattr(loader.options(**loader_options), "dtype", "float32"))
        label = choice.trial_label(dtype, several_loaders=len(loaders) > 1)
        if label in [trial.label for trial in trials]:
            raise document.error(where, f"'{label}' is used by an earlier trial; give each trial its own 'label'.")
        trials.append(ResolvedTrial(label, choice, dtype))
    return tuple(trials)


def _questions(document: Document, experiment: Experiment, folder: Path) -> tuple[tuple[str, ...], tuple[Message, ...]]:
    """The texts and the requests, one of which is empty."""
    if experiment.requests is not None:
        if experiment.texts is not None:
            raise document.error(("requests",), "cannot be used with 'texts'; leave one of them out.")
        return (), experiment.requests.messages
    if experiment.texts is None:
        raise document.error(("texts",), "is required, unless there are 'requests'.")
    for model_id, model in experiment.models.items():
        if isinstance(model, EngineChoice):
            why = "an engine, to which texts mean nothing; use 'requests' in place of 'texts'."
            raise document.error(("models", model_id), f"is {why}")
    return _texts(document, experiment.texts, folder), ()


def _texts(document: Document, texts: Texts, folder: Path) -> tuple[str, ...]:
    if texts.inline is not None:
        return tuple(texts.inline)
    with _locate_errors(document, "texts", "file"):
        return read_texts(resolve_path(texts.file or "", folder))


def _question(path: Path) -> str:
    """The experiment's question, from the comment in the file's first line; "" if there is none."""
    line = next(iter(read_text(path, MAX_BYTES).splitlines()), "").strip()  # YAML has the same line ends
    return line.removeprefix("#").strip() if line.startswith("#") else ""


def _select(resolved: ResolvedExperiment, names: Sequence[str] | None) -> ResolvedExperiment:
    """The experiment with only the trials in `names`, each the label of a trial or the name of a strategy."""
    if names is None:
        return resolved
    for name in names:
        if not any(name in (trial.label, trial.choice.strategy) for trial in resolved.trials):
            known = ", ".join(f"'{trial.label}'" for trial in resolved.trials)
            raise YamlError(f"--strategies: this experiment has no '{name}'. It has: {known}.")
    chosen = tuple(t for t in resolved.trials if t.label in names or t.choice.strategy in names)
    experiment = resolved.experiment.model_copy(update={"strategies": [trial.choice for trial in chosen]})
    return replace(resolved, experiment=experiment, trials=chosen)
