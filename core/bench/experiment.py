"""An experiment's YAML, strict, and the plan of trials that it stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, model_validator

from ..choices import STRICT, ModelId, Reference, StrategyChoice
from ..errors import OptionError, ResidencyError, YamlError
from ..models.references import anchor
from ..plugins import Plugins, load_plugins
from ..strict_yaml import Document, read

MAX_REQUESTS = 1_000_000  # in one trial
MAX_TEXTS = 10_000
MAX_TEXT_FILE = 32 << 20  # bytes

Text = Annotated[str, Field(max_length=1_000_000)]


class Texts(BaseModel):
    """A list of texts, or `{file: path}` with one text in each line."""

    model_config = STRICT

    inline: Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)] | None = None
    file: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_short_form(cls, value: Any) -> Any:
        if isinstance(value, list):
            return {"inline": value}
        if isinstance(value, dict) and set(value) == {"file"}:
            return value
        raise ValueError("must be a list of texts, or {file: path}")


class Experiment(BaseModel):
    """The keys of an experiment's YAML file."""

    model_config = STRICT

    name: ModelId
    models: Annotated[dict[ModelId, Reference], Field(min_length=1)] = {"embedded": "embedded"}
    strategies: Annotated[list[StrategyChoice], Field(min_length=1)]
    texts: Texts
    repetitions: Annotated[int, Field(ge=1, le=MAX_REQUESTS)] = 10
    repeats: Annotated[int, Field(ge=1, le=1000)] = 3
    plugins: list[str] = []
    seed: int = 0
    timeout: Annotated[float, Field(gt=0, le=3600, description="seconds, for start-up and for each answer")] = 120.0


@dataclass(frozen=True)
class Overrides:
    """What the command line says in place of the file."""

    repetitions: int | None = None
    repeats: int | None = None
    strategies: Sequence[str] | None = None
    models: dict[str, str] | None = None


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

    @property
    def requests(self) -> int:
        """In one trial, without the first request."""
        return len(self.texts) * len(self.experiment.models) * self.experiment.repetitions


def load_experiment(path: Path, overrides: Overrides | None = None) -> Plan:
    """Raises ResidencyError, whose sentence names file, line, column and key."""
    document = read(path)
    experiment = _override(document.validate(Experiment), overrides or Overrides())
    folder = path.resolve().parent
    experiment = experiment.model_copy(
        update={
            "models": {key: anchor(reference, folder) for key, reference in experiment.models.items()},
            "plugins": [str(folder / name) if name.endswith(".py") else name for name in experiment.plugins],
        }
    )
    try:
        plugins = load_plugins(experiment.plugins)
    except ResidencyError as error:
        raise document.error(("plugins",), str(error)) from error
    trials = _trials(document, experiment, plugins)
    plan = Plan(_question(path), experiment, _texts(document, experiment.texts, folder), trials, plugins)
    if plan.requests > MAX_REQUESTS:
        raise document.error(
            ("repetitions",),
            f"{len(plan.texts)} texts × {len(experiment.models)} models × {experiment.repetitions} repetitions are"
            f" over the limit of {MAX_REQUESTS} requests in a trial.",
        )
    return _select(plan, overrides.strategies if overrides else None)


def _override(experiment: Experiment, overrides: Overrides) -> Experiment:
    named = {
        "repetitions": overrides.repetitions,
        "repeats": overrides.repeats,
        "models": {**experiment.models, **overrides.models} if overrides.models else None,
    }
    changes = {key: value for key, value in named.items() if value is not None}
    return Experiment.model_validate({**dict(experiment), **changes})


def _trials(document: Document, experiment: Experiment, plugins: Plugins) -> tuple[TrialPlan, ...]:
    trials: list[TrialPlan] = []
    for i, choice in enumerate(experiment.strategies):
        where = ("strategies", i)
        try:
            plugins.strategy(choice.strategy).validate(choice.options)
        except OptionError as error:
            raise document.error((*where, "options", error.option), str(error)) from error
        except ResidencyError as error:
            raise document.error((*where, "strategy"), str(error)) from error
        try:
            loader = plugins.loader(choice.loader.name)
            options = loader.options(**loader.validate(choice.loader.options))
        except ResidencyError as error:
            raise document.error((*where, "loader"), str(error)) from error
        if choice.shown_as in [trial.label for trial in trials]:
            raise document.error(where, f"'{choice.shown_as}' is there already; give each a 'label' of its own.")
        trials.append(TrialPlan(choice.shown_as, choice, str(getattr(options, "dtype", "float32"))))
    return tuple(trials)


def _texts(document: Document, texts: Texts, folder: Path) -> tuple[str, ...]:
    if texts.inline is not None:
        return tuple(texts.inline)
    path = folder / Path(texts.file or "").expanduser()
    where = ("texts", "file")
    try:
        if path.stat().st_size > MAX_TEXT_FILE:
            raise document.error(where, f"{path} is larger than {MAX_TEXT_FILE >> 20} MiB; cut it.")
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise document.error(where, f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise document.error(where, f"{path} is not UTF-8 (byte {error.start}).") from error
    if not 1 <= len(lines) <= MAX_TEXTS:
        raise document.error(where, f"{path} must hold 1 to {MAX_TEXTS} lines with text, but holds {len(lines)}.")
    return tuple(lines)


def _question(path: Path) -> str:
    """The file's first line, a comment that says what the experiment answers."""
    with path.open(encoding="utf-8") as file:
        line = file.readline().strip()
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
    return Plan(plan.question, experiment, plan.texts, chosen, plan.plugins)
