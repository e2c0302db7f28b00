"""The runner's flags."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import NoReturn

from .choices import fraction
from .quantities import MOST_PER_SECOND, RATE_SUCH_AS, per_second

OF_AN_EXPERIMENT = ("experiment", "repetitions", "repeats", "strategies", "model", "plugins", "dry_run")
OF_A_REPORT = ("wide", "waterfall", "compare", "exit_on_slo", "rate")
UNUSED = {  # by the flag that stands for an experiment
    "resume": OF_AN_EXPERIMENT,
    "report": OF_AN_EXPERIMENT,
    "convert": (*OF_AN_EXPERIMENT, *OF_A_REPORT),
    "check": (*OF_AN_EXPERIMENT, *OF_A_REPORT),
    "plan": (*OF_AN_EXPERIMENT, *OF_A_REPORT),
}

EXAMPLES = {  # of values
    "--output": "results",
    "--repetitions": "10",
    "--repeats": "5",
    "--strategies": "small,large",
    "--model": "sst2=embedded",
    "--compare": "results/default/latest",
    "--tolerance": "5%",
    "--rate": "200/h",
    "--resume": "results/default/latest",
    "--report": "results/default/latest",
    "--convert": "./my-model",
    "--check": "recycled.py",
    "--plan": "plan.yaml",
}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Ends the process with a sentence where something is wrong, or would be passed over."""
    parser = _parser()
    flags, unknown = parser.parse_known_args(arguments)
    if unknown:
        odd = ", ".join(unknown)
        parser.error(f"{odd}: there is no such flag" if odd.startswith("-") else f"name one experiment, not {odd}, too")
    for instead, names in UNUSED.items():
        unused = [name for name in names if getattr(flags, name)]
        if getattr(flags, instead) and unused:
            named = ", ".join(name if name == "experiment" else f"--{name.replace('_', '-')}" for name in unused)
            parser.error(f"--{instead} takes no {named}")
    if sum(bool(getattr(flags, instead)) for instead in UNUSED) > 1:
        parser.error("--resume, --report, --convert, --check and --plan each stand alone; name one of them")
    for name, given in (("--wide", flags.wide), ("--exit-on-slo", flags.exit_on_slo)):
        if given and (flags.dry_run or flags.plugins):
            parser.error(f"{name} goes with a run or a report, not with --dry-run or --plugins")
    if flags.confirm and not flags.plan:
        parser.error("--confirm goes with --plan FILE")
    if not (flags.experiment or flags.plugins or any(getattr(flags, instead) for instead in UNUSED)):
        parser.error("name an experiment, such as experiments/default.yaml")
    return flags


class _Parser(argparse.ArgumentParser):
    """Says in our words what argparse says of a flag's value."""

    def error(self, message: str) -> NoReturn:
        flag, _, said = message.removeprefix("argument ").partition(": ")
        if said.startswith("expected"):
            example = EXAMPLES.get(flag, "")
            message = f"{flag} needs a value{f', such as {flag} {example}' if example else ''}"
        elif said.startswith("ignored explicit argument"):
            message = f"{flag} takes no value"
        elif said:
            message = f"{flag}: {said}"
        super().error(message)


def _parser() -> argparse.ArgumentParser:
    flags = _Parser(prog="runner.py", description="Measure what loading strategies cost.", allow_abbrev=False)
    flags.add_argument("experiment", nargs="?", type=Path, help="a YAML file, such as experiments/default.yaml")
    flags.add_argument("--output", type=Path, default=Path("results"), metavar="DIR", help="root of all results")
    flags.add_argument("--repetitions", type=_positive, metavar="N", help="requests for each text in each round")
    flags.add_argument("--repeats", type=_positive, metavar="N", help="rounds")
    flags.add_argument("--strategies", metavar="A,B", help="only these, by label or by strategy")
    flags.add_argument("--model", action="append", default=[], type=_model, metavar="ID=REFERENCE")
    flags.add_argument("--plugins", action="store_true", help="list strategies and loaders, and end")
    flags.add_argument("--dry-run", action="store_true", help="check the experiment, print the plan, and end")
    flags.add_argument("--wide", action="store_true", help="print the table with all of its columns")
    flags.add_argument("--waterfall", action="store_true", help="draw where the time of a load goes")
    flags.add_argument("--compare", type=Path, metavar="DIR", help="say what changed since this older run")
    flags.add_argument("--tolerance", type=_fraction, default=0.05, metavar="SHARE", help="of --compare, such as 5%%")
    flags.add_argument("--rate", type=_rate, metavar="RATE", help="say what to use at that rate, such as 200/h")
    flags.add_argument("--exit-on-slo", action="store_true", help="exit with 1 where a target of 'slo' is not met")
    flags.add_argument("--resume", type=Path, metavar="DIR", help="go on with a run that did not end, and report it")
    flags.add_argument("--report", type=Path, metavar="DIR", help="rebuild table, summary and report, and end")
    flags.add_argument("--convert", nargs="+", metavar="MODEL", help="convert what these references lead to, and end")
    flags.add_argument(
        "--check", nargs="+", metavar="PLUGIN", help="say whether these plugins keep the contract, and end"
    )
    flags.add_argument("--plan", type=Path, metavar="FILE", help="simulate what each setting would cost, and end")
    flags.add_argument("--confirm", action="store_true", help="of --plan: also measure the best two settings")
    flags.add_argument("--version", action="version", version=f"residency {version()}", help="say which this is")
    return flags


def version() -> str:
    """Of the distribution; a checkout that is not installed has none."""
    try:
        return metadata.version("residency")
    except metadata.PackageNotFoundError:
        return "(a checkout that is not installed)"


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, such as 5, not '{text}'")
    return int(text)


def _rate(text: str) -> float:
    """Requests a second."""
    try:
        rate = float(per_second(text))
    except ValueError:
        rate = 0.0
    if not 0 < rate <= MOST_PER_SECOND:
        most = f"more than 0 and at most {MOST_PER_SECOND:.0f}/s"
        raise argparse.ArgumentTypeError(f"must be {RATE_SUCH_AS}, {most}, not '{text[:40]}'")
    return rate


def _fraction(text: str) -> float:
    try:
        share = float(fraction(text if text.endswith("%") else float(text)))
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise argparse.ArgumentTypeError(f"must be a percentage such as 5%, or a fraction such as 0.05, not '{text}'")
    return share


def _model(text: str) -> tuple[str, str]:
    model_id, equals, reference = text.partition("=")
    if not (model_id and equals and reference):
        raise argparse.ArgumentTypeError(f"must be ID=REFERENCE, such as sst2=embedded, not '{text}'")
    return model_id, reference
