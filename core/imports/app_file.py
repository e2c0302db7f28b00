"""The settings that an import becomes, as a file for a person to edit."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import yaml

from ..config.engines import EngineChoice
from ..config.quantities import SECONDS, duration
from .llama_swap import Imported
from .notes import Note

Ttl = Literal["kept", "auto"]
NEVER, AUTO = "forever", "auto"
OPTIONS = frozenset({"ttl", "pin", "preload", "capacity", "memory_budget"})
"""What the strategy must take that serves the models."""
SPARE = 30.0  # seconds that a request may wait, beyond the longest load
MAX_TIMEOUT = 3600.0
LARGE = {"max_body": "32MiB", "max_queue_bytes": "256MiB"}
TTL_KEPT = (
    "A ttl is a guess. With ttl: auto, an idle model stays until that has cost as much as loading it again would."
)
TTL_AUTO = "auto: an idle model stays until that has cost as much as loading it again would. The file said: "
BUDGET = "capacity counts models. With memory_budget, such as 12GiB, as many stay as fit, and their memory is measured."


def app_file(source: Path, imported: Imported, strategy: str, budget: str | None, ttl: Ttl) -> str:
    """The text of a settings file. With a `budget`, as many models stay as fit, in place of a capacity."""
    lines = [f"# Imported from {source.name}.", *_comments(note for note in imported.notes if note.model is None)]
    lines.append("models:")
    for model_id, model in imported.models.items():
        about = (note for note in imported.notes if note.model == imported.names[model_id])
        lines += _indented([*_comments(about), *_yaml({model_id: _plain(model)})])
    lines += ["", "strategies:", *_indented([*_about(imported, budget, ttl)])]
    lines += _indented(_yaml([{"strategy": strategy, "options": _options(imported, budget, ttl)}]))
    lines += ["", "# A request waits for the load of its model, and its body may hold a long context, images or sound."]
    lines += _yaml({"request_timeout": _duration(min(imported.within + SPARE, MAX_TIMEOUT)), **LARGE})
    return "\n".join(lines) + "\n"


def _about(imported: Imported, budget: str | None, ttl: Ttl) -> list[str]:
    """Comments about what a person may want to change."""
    seconds = [f"{name} {_ttl(each)}" for name, each in imported.ttls.items()]
    lines = [f"# {TTL_AUTO}{', '.join(seconds)}." if ttl == AUTO else f"# {TTL_KEPT}"]
    return lines if budget or imported.capacity is None else [*lines, f"# {BUDGET}"]


def _options(imported: Imported, budget: str | None, ttl: Ttl) -> dict[str, object]:
    ttls = {name: _ttl(seconds) for name, seconds in imported.ttls.items()}
    one = len(set(ttls.values())) == 1
    options: dict[str, object] = {"ttl": AUTO if ttl == AUTO else next(iter(ttls.values())) if one else ttls}
    if budget:
        options["memory_budget"] = budget
    elif imported.capacity is not None:
        options["capacity"] = imported.capacity
    lists = {"pin": imported.pinned, "preload": imported.preloaded}
    return options | {name: models for name, models in lists.items() if models}


def _plain(model: EngineChoice) -> dict[str, object]:
    """The keys that are set, as a person would write them."""
    values: dict[str, object] = model.model_dump(mode="json", exclude_unset=True)
    if "within" in values:
        values["within"] = _duration(model.within)
    return values


def _ttl(seconds: float | None) -> str:
    return NEVER if seconds is None else _duration(seconds)


def _duration(seconds: float) -> str:
    """The duration in the largest unit that gives a whole number: `90s`, `5min`."""
    unit, length = next((each for each in SECONDS.items() if seconds % each[1] == 0), ("s", 1.0))
    return f"{seconds / length:.0f}{unit}" if seconds % length == 0 else duration(seconds).replace(" ", "")


def _comments(notes: Iterable[Note]) -> list[str]:
    return [f"# {note}" for note in notes]


def _yaml(value: object) -> list[str]:
    text: str = yaml.safe_dump(value, allow_unicode=True, sort_keys=False, width=110)
    return text.splitlines()


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"  {line}" for line in lines]
