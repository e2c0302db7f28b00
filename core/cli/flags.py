"""Flags that several commands share, and the types of their values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from ..bench.resume import START_ENGINES
from ..config.choices import parse_fraction
from ..config.quantities import MOST_PER_SECOND, RATE_SUCH_AS, parse_rate, parse_size
from ..results.folder import resolve_link
from .results_folder import OlderRun, read_older_run

Command = TypeVar("Command", bound=Callable[..., Any])


class Count(click.ParamType[int]):
    """A whole number of at least 1."""

    name = "N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value)
        if not text.isdecimal() or int(text) < 1:
            self.fail(f"must be a whole number of at least 1, such as 5, not '{text}'", param, ctx)
        return int(text)


class Rate(click.ParamType[float]):
    """Requests per second."""

    name = "RATE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            rate = float(parse_rate(value))
        except ValueError:
            rate = 0.0
        if not 0 < rate <= MOST_PER_SECOND:
            most = f"more than 0 and at most {MOST_PER_SECOND:.0f}/s"
            self.fail(f"must be {RATE_SUCH_AS}, {most}, not '{str(value)[:40]}'", param, ctx)
        return rate


class Share(click.ParamType[float]):
    """A fraction of at least 0 and less than 1, or the same as a percentage."""

    name = "SHARE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value)
        try:
            share = float(parse_fraction(text if text.endswith("%") else float(text)))
        except ValueError:
            share = -1.0
        if not 0 <= share < 1:
            self.fail(f"must be a percentage such as 5%, or a fraction such as 0.05, not '{text}'", param, ctx)
        return share


class Size(click.ParamType[str]):
    """A number of bytes, as it was written."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            parse_size(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return str(value)


class Model(click.ParamType[tuple[str, str]]):
    """A model id and a reference."""

    name = "ID=REFERENCE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        model_id, equals, reference = str(value).partition("=")
        if not (model_id and equals and reference):
            self.fail(f"must be ID=REFERENCE, such as sst2=embedded, not '{value}'", param, ctx)
        return model_id, reference


class Names(click.ParamType[list[str]]):
    """A list of names, separated by commas."""

    name = "A,B"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        return value if isinstance(value, list) else [name.strip() for name in str(value).split(",")]


class RunFolder(click.ParamType[Path]):
    """The folder of a run. A link such as `latest` is resolved at once, because later runs change it."""

    name = "DIR"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return _folders(incomplete)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        return resolve_link(Path(value))


class FinishedRun(click.ParamType[OlderRun]):
    """An older run. It is read at once, so that a broken one is refused before anything is measured."""

    name = "DIR"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return _folders(incomplete)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> OlderRun:
        return value if isinstance(value, OlderRun) else read_older_run(resolve_link(Path(value)))


def _folders(incomplete: str) -> list[CompletionItem]:
    """Has the shell complete the names of folders."""
    return [CompletionItem(incomplete, type="dir")]


OUTPUT = click.option(
    "--output", type=click.Path(path_type=Path), default=Path("results"), metavar="DIR", show_default=True,
    help="Root folder of all results.",
)  # fmt: skip
TOLERANCE = click.option(
    "--tolerance", type=Share(), default="5%", show_default=True, help="Exit with 1 on a regression beyond this share."
)
RAY = click.option(
    "--ray", metavar="ADDRESS", help="Run each round on a machine of the Ray cluster at ADDRESS, such as auto."
)
ENGINES = click.option(
    START_ENGINES, is_flag=True, help="Allow the programs that the run's experiment names under 'run' to start."
)
OF_AN_EXPERIMENT = (
    click.option("--repetitions", type=Count(), help="Requests for each text in each round, in place of the file's."),
    click.option("--repeats", type=Count(), help="Rounds, in place of the file's."),
    click.option("--strategies", type=Names(), help="Run only these trials, by label or by strategy."),
    click.option("--model", "models", multiple=True, type=Model(), help="Replace the reference of a model id."),
)
OF_A_REPORT = (
    click.option("--wide", is_flag=True, help="Print all columns of the table."),
    click.option("--waterfall", is_flag=True, help="Draw where the time of a load goes, phase by phase."),
    click.option("--compare", "older", type=FinishedRun(), help="Report what changed since the older run in DIR."),
    TOLERANCE,
    click.option("--rate", type=Rate(), help="Recommend for this rate, such as 200/h, if no workload states one."),
    click.option("--exit-on-slo", is_flag=True, help="Exit with 1 unless every target of 'slo' is met."),
)


def experiment_flags(command: Command) -> Command:
    """Add the flags that override an experiment's file."""
    return _with(command, OF_AN_EXPERIMENT)


def report_flags(command: Command) -> Command:
    """Add the flags that say what to report of a run."""
    return _with(command, OF_A_REPORT)


def _with(command: Command, options: tuple[Callable[[Command], Command], ...]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command
