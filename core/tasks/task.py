"""A row of the table of tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

Pair = tuple[str, str]
Text = str | Pair


def text_length(item: Text) -> int:
    """The characters of a text, or of both texts of a pair."""
    return len(item) if isinstance(item, str) else len(item[0]) + len(item[1])


@dataclass(frozen=True)
class Task:
    """What a model is asked and what it answers. Batches, routes and the comparison of answers follow from it.

    `item` and `result` are types that pydantic validates and writes. A plugin's row may be any object with these
    members; those that have a default may be left out.
    """

    name: str
    item: Any
    result: Any
    length: Callable[[Any], int]
    """Returns the characters of an item, which a batch counts."""
    apart: Callable[[Any, Any], float]
    """Returns how far two results are from each other: 0 if they are the same, above 1 if they differ."""
    from_text: Callable[[str], Any]
    """Returns an item that holds the text: for probes, and for experiments, which send texts."""
    check: Callable[[Any], None]
    """Raises ValueError, which says why, for a value that is no result of this task."""
    normalize: Callable[[Any], Any] = lambda result: result
    """Returns the result in its full form; a loader may return a shorter one."""
    heads: tuple[str, ...] = ()
    """The ends of the names in `architectures` of config.json that mean this task."""
    is_of: Callable[[Mapping[str, Any], Path], bool] = field(default=lambda config, directory: True)
    """Returns whether a checkpoint with such a head has this task, by config.json and the other files."""
    leads: Callable[[Mapping[str, Any], Path], bool] = field(default=lambda config, directory: False)
    """Returns whether it is the main task of such a checkpoint, if that has others from rows above it."""


def to_task(row: Any) -> Task:
    """The row as a Task. Raises ValueError for an object that lacks a member."""
    if isinstance(row, Task):
        return row
    members = {each.name: getattr(row, each.name) for each in fields(Task) if hasattr(row, each.name)}
    for each in fields(Task):
        has_default = each.default is not MISSING or each.default_factory is not MISSING
        if each.name not in members and not has_default:
            raise ValueError(f"{row!r} is no task: it has no member {each.name}")
    return Task(**members)
