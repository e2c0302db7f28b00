"""The commands: their arguments, their help, and the action of each. Each returns the exit status."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from ..bench.experiment import Overrides, load_experiment
from ..bench.server import ROOT
from ..config.settings import CONFIG, settings_from_environment
from ..imports.app_file import Ttl
from ..names import APP, CLUSTER
from ..plugins import load_plugins
from ..report.plugin_list import plugin_list
from . import actions
from .flags import ENGINES, OUTPUT, RAY, TOLERANCE, FinishedRun, RunFolder, Size, experiment_flags, report_flags
from .import_settings import import_settings
from .results_folder import OlderRun
from .run_report import ReportOptions

FILE = click.Path(path_type=Path)
# Flags that became commands. They still work.
FORMER_FLAGS = ("--plan", "--resume", "--report", "--convert", "--check", "--plugins")


class Commands(click.Group):
    """A group in which `FILE` means `run FILE`, and `FORMER_FLAGS` still work."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, self._translate(args))

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order of definition, not of the alphabet

    def _translate(self, args: list[str]) -> list[str]:
        """The arguments in the form of a command: `--plan FILE` becomes `plan FILE`, and `FILE` becomes `run FILE`."""
        for number, argument in enumerate(args):
            flag, equals, value = argument.partition("=")
            if args[0] not in self.commands and flag in FORMER_FLAGS:
                rest = [*args[:number], *([value] if equals else []), *args[number + 1 :]]
                return [flag.removeprefix("--"), *rest]
        if not args or args[0] in self.commands or args[0] in ("--help", "-h", "--version"):
            return args
        is_file = args[0].startswith("-") or Path(args[0]).suffix or os.sep in args[0] or Path(args[0]).exists()
        return ["run", *args] if is_file else args


def version() -> str:
    """The version of the installed distribution, or a phrase that it is not installed."""
    try:
        return metadata.version("residency")
    except metadata.PackageNotFoundError:
        return "(a checkout that is not installed)"


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="FILE alone means 'run FILE'. Exit status: 0 success, 1 a trial failed or a check was not met, "
    "2 bad input, 130 interrupted.",
)
@click.version_option(version(), message="residency %(version)s")
def commands() -> None:
    """Measure what it costs to keep a model in memory, and recommend a loading strategy."""


@commands.command()
@click.argument("file", type=FILE)
@OUTPUT
@experiment_flags
@click.option("--dry-run", is_flag=True, help="Check the file and list its trials. Write and download nothing.")
@RAY
@report_flags
def run(file: Path, output: Path, dry_run: bool, ray: str | None, **flags: Any) -> int:
    """Run the experiment in FILE, and report it."""
    options = _report_options(flags)
    plan = load_experiment(file, Overrides(rate=options.rate, **flags | {"models": dict(flags["models"])}))
    actions.check_targets(options, plan.experiment.slo)
    return actions.describe_run(plan) if dry_run else actions.run(plan, output, options, ray)


@commands.command()
@click.argument("folder", metavar="DIR", type=RunFolder())
@RAY
@ENGINES
@report_flags
def resume(folder: Path, ray: str | None, start_engines: bool, **flags: Any) -> int:
    """Continue the interrupted run in DIR, and report it."""
    return actions.resume(folder, _report_options(flags), ray, start_engines=start_engines)


@commands.command()
@click.argument("folder", metavar="DIR", type=RunFolder())
@report_flags
def report(folder: Path, **flags: Any) -> int:
    """Report the run in DIR again, from its samples.

    Overwrites its table.md, summary.json and report.html.
    """
    return actions.report(folder, _report_options(flags))


@commands.command()
@click.argument("older", metavar="OLDER", type=FinishedRun())
@click.argument("newer", metavar="NEWER", type=RunFolder())
@TOLERANCE
def compare(older: OlderRun, newer: Path, tolerance: float) -> int:
    """Report what changed between two runs.

    Exits with 1 if a trial of NEWER is worse than in OLDER by more than the tolerance.
    """
    return actions.compare(older, newer, tolerance)


@commands.command()
@click.argument("folder", metavar="DIR", type=RunFolder())
@click.option("--output", type=FILE, metavar="DIR", help="Folder for the files.  [default: export in the run's folder]")
def export(folder: Path, output: Path | None) -> int:
    """Write a run's data as CSV, SVG, PDF and LaTeX.

    requests.csv has a row for each request of the finished rounds.
    """
    return actions.export(folder, output or folder / "export")


@commands.command()
@click.argument("file", type=FILE)
@OUTPUT
@click.option("--confirm", is_flag=True, help="Also measure the best two settings.")
@ENGINES
def plan(file: Path, output: Path, confirm: bool, start_engines: bool) -> int:
    """Simulate what each setting of a plan would cost.

    FILE names a run, the traffic and the prices.
    """
    return actions.simulate_plan(file, output, confirm=confirm, start_engines=start_engines)


@commands.command()
@click.argument("file", type=FILE, required=False)
def plugins(file: Path | None) -> int:
    """List strategies and loaders with their options.

    With FILE, an experiment, lists those of its plugins, too.
    """
    print(plugin_list(load_experiment(file).plugins if file else load_plugins()))
    return actions.OK


@commands.command()
@click.argument("plugins", nargs=-1, required=True, metavar="PLUGIN...")
def check(plugins: tuple[str, ...]) -> int:
    """Check that a plugin keeps the contract, and how well its strategies decide.

    PLUGIN is a module or a .py file, whose code is executed, or the name of a strategy or loader.
    """
    return actions.check_plugins(plugins)


@commands.command()
@click.argument("references", nargs=-1, required=True, metavar="MODEL...")
def convert(references: tuple[str, ...]) -> int:
    """Convert checkpoints for servers without PyTorch.

    MODEL is a reference, such as ./my-model or org/name.
    """
    return actions.convert(references)


@commands.command("import")
@click.argument("file", type=FILE)
@click.option(
    "--output", "-o", type=FILE, default=Path("app.yaml"), show_default=True, metavar="FILE", help="The file to write."
)
@click.option("--memory-budget", type=Size(), help="Keep as many models as fit, in place of a number of models.")
@click.option(
    "--ttl", type=click.Choice(["kept", "auto"]), default="kept", show_default=True,
    help="Keep the times after which models are unloaded, or have them computed.",
)  # fmt: skip
def import_(file: Path, output: Path, memory_budget: str | None, ttl: Ttl) -> int:
    """Write settings of a server from a configuration of llama-swap.

    Prints what it cannot carry over, with lines of FILE. The settings hold the same as comments.
    """
    return import_settings(file, output, memory_budget, ttl)


@commands.command(context_settings={"ignore_unknown_options": True})
@click.option("--config", type=FILE, help="Settings of one server, in place of RESIDENCY_CONFIG.")
@click.option("--host", metavar="ADDRESS", help="Listen on this address.  [default: 127.0.0.1]")
@click.option("--port", type=int, metavar="N", help="Listen on this port.  [default: with FILE 8001, without 8000]")
@click.option("--node", "nodes", multiple=True, metavar="HOST:PORT[=WEIGHT]", help="Balance over running nodes.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[FILE] [UVICORN FLAGS]...")
def serve(
    config: Path | None, host: str | None, port: int | None, nodes: tuple[str, ...], arguments: tuple[str, ...]
) -> int:
    """Serve models over HTTP.

    FILE holds the settings. With the key 'cluster', several nodes serve behind a balancer, and SIGHUP makes them read
    FILE again. A single server takes the flags of uvicorn.
    """
    file = Path(arguments[0]) if arguments and not arguments[0].startswith("-") else None
    flags = arguments[1:] if file else arguments
    if nodes and file is None:
        raise click.UsageError("--node needs FILE, settings with 'cluster'.")
    if file and config:
        raise click.UsageError("give either FILE or --config.")
    if file or config:
        os.environ[CONFIG] = str(file or config)
    if file and (nodes or settings_from_environment().cluster):
        if flags:
            raise click.UsageError(f"several nodes take no {flags[0]}; uvicorn's flags are for a single server.")
        command = [CLUSTER, str(file), *(f"--node={node}" for node in nodes)]
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    else:
        command = ["uvicorn", "--app-dir", str(ROOT), APP, *flags]
    port = 8001 if port is None and file else port
    command += [f"--{name}={value}" for name, value in (("host", host), ("port", port)) if value is not None]
    # Replaces this process, because it has imported far more than a server needs.
    os.execv(sys.executable, [sys.executable, "-m", *command])  # noqa: S606


def _report_options(flags: dict[str, Any]) -> ReportOptions:
    """Remove the flags of a report from `flags`, and return them."""
    return ReportOptions(**{name: flags.pop(name) for name in ReportOptions.__dataclass_fields__})
