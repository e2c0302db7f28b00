"""The files of a run's folder, and of a plan's, besides the samples."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from ..bench.environment import describe_environment
from ..errors import FileError, ResultsError
from ..report.plan import plan_text
from ..report.prose.environment import say_difference
from ..report.prose.sentences import say
from ..results.environment import Environment, differences
from ..results.folder import read_records
from ..results.plan import Plan
from ..stats.changes import changes
from ..stats.rounds import Run, arrange

ENVIRONMENT = "environment.json"


@dataclass(frozen=True)
class OlderRun:
    """A run to compare with."""

    folder: Path
    run: Run


def read_older_run(folder: Path) -> OlderRun:
    """Read a run to compare with. Raises FileError."""
    try:
        return OlderRun(folder, arrange(read_records(folder)))
    except ResultsError as error:
        raise FileError(f"The older run: {error}") from error


@dataclass(frozen=True)
class ChangesText:
    """What changed since an older run, in words."""

    sentences: list[str]
    regressed: bool
    """Whether any of it is a regression."""


def compare_runs(older: OlderRun, folder: Path, run: Run, tolerance: float) -> ChangesText:
    """What changed since the older run, and in the environment."""
    changed = changes(older.run, run, tolerance)
    before, now = (read_environment(each) for each in (older.folder, folder))
    since = [f"Since that run {say_difference(each)}." for each in differences(before, now)]
    return ChangesText([*map(say, changed.findings), *since], changed.regressed)


def write_environment(folder: Path) -> None:
    """Write what the machine is like before the first round."""
    write_json(folder / ENVIRONMENT, describe_environment().model_dump(mode="json"))


def read_environment(folder: Path) -> Environment | None:
    """None when it cannot be read."""
    try:
        return Environment.model_validate_json((folder / ENVIRONMENT).read_bytes())
    except (OSError, ValidationError):
        return None


def warn_of_differences(folder: Path) -> None:
    """Where the environment is no longer that of the first rounds."""
    for difference in differences(read_environment(folder), describe_environment()):
        warning = f"Warning: since the first rounds {say_difference(difference)}: they may not be alike."
        print(warning, file=sys.stderr)


def write_plan(folder: Path, plan: Plan) -> None:
    """plan.json, and plan.md with what the terminal then shows."""
    write_json(folder / "plan.json", plan.model_dump(mode="json", by_alias=True))
    (folder / "plan.md").write_text(plan_text(plan, "pipe") + "\n", encoding="utf-8")
    print(f"{plan_text(plan, 'simple')}\n\nWritten to {folder}")


def write_json(path: Path, value: object) -> None:
    """As text that a person can read, too."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
