"""llama-swap's groups and matrix: which models may be in memory together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ..config.strict_yaml import Document, Path_
from .llama_swap_file import Group, SwapFile
from .notes import Notes

FITTING = "as many models stay as fit into the memory budget."
ONE_AT_A_TIME = "one model at a time is in memory. Import with --memory-budget for several."


class Together(NamedTuple):
    """How many models may be in memory, and which of them always stay."""

    capacity: int | None
    """None if all of them may be."""
    persistent: list[str]


def together(file: SwapFile, document: Document, notes: Notes, *, by_memory: bool) -> Together:
    """What the groups say, unless memory alone decides, `by_memory`.

    Raises YamlError for a member that is no model, or is in two groups.
    """
    where, groups = _groups(file)
    owners = _owners(groups, file, document, where)
    for name, group in groups.items():
        if group.persistent and group.swap and len(group.members) > 1:
            notes.add((*where, name, "swap"), "is left out: all models of this group are pinned.")
        for key in group.model_extra or {}:
            notes.add((*where, name, key), "is not known here, and was left out.")
    pinned = [member for member, name in owners.items() if groups[name].persistent]
    if matrix := _matrix(document):
        notes.add(matrix, f"is left out: {FITTING if by_memory else ONE_AT_A_TIME}")
        return Together(1, [])
    others = [model for model in file.models if model not in owners]
    rest = Group(members=others)
    counted = [group for group in groups.values() if not group.persistent] + ([rest] if others else [])
    most = max((_at_once(group) for group in counted if group.exclusive), default=0)
    most += sum(_at_once(group) for group in counted if not group.exclusive)
    if most + len(pinned) >= len(file.models):
        return Together(None, pinned)
    if groups:
        left = f"became 'capacity': of the models that are not pinned, at most {most} stay in memory."
        notes.add(where, f"are left out, but for pins: {FITTING}" if by_memory else left)
    return Together(max(most, 1) + len(pinned), pinned)


def _groups(file: SwapFile) -> tuple[Path_, Mapping[str, Group]]:
    if file.groups:
        return ("groups",), file.groups
    return ("routing", "router", "settings", "groups"), file.routing.router.settings.groups


def _owners(groups: Mapping[str, Group], file: SwapFile, document: Document, where: Path_) -> dict[str, str]:
    """The group of each model that is in one."""
    owners: dict[str, str] = {}
    for name, group in groups.items():
        for i, member in enumerate(group.members):
            here = (*where, name, "members", i)
            if member not in file.models:
                raise document.error(here, f"there is no model '{member[:80]}'.")
            if member in owners:
                raise document.error(here, f"'{member[:80]}' is in the group '{owners[member]}', too.")
            owners[member] = name
    return owners


def _matrix(document: Document) -> Path_ | None:
    """Where the file has a matrix, which is a language of its own."""
    value = document.value
    if "matrix" in value:
        return ("matrix",)
    for key in ("router", "settings"):
        value = value.get("routing", {}) if key == "router" else value
        value = value.get(key, {}) if isinstance(value, dict) else {}
    return ("routing", "router", "settings", "matrix") if isinstance(value, dict) and "matrix" in value else None


def _at_once(group: Group) -> int:
    return min(1, len(group.members)) if group.swap else len(group.members)
