"""One label for settings that differ in the value of one option."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

# `name (option value, …)`, and the loader, if the plan has several
LABEL = re.compile(r"(?P<name>[^ (),]+) \((?P<options>[^()]+)\)(?P<loader>(, .*)?)")


def families(labels: Iterable[str]) -> dict[str, list[str]]:
    """The labels by their common one: `a (b 1, 2)` for `a (b 1)` and `a (b 2)`; in the order of the first of each."""
    found: list[_Family] = []
    for label in labels:
        options = _options(label)
        if not any(family.add(label, options) for family in found):
            found.append(_Family(label, options, [label]))
    return {family.name: family.labels for family in found}


def in_families(labels: Iterable[str]) -> list[str]:
    """The common labels."""
    return list(families(labels))


@dataclass
class _Family:
    """Labels that differ in the value of one option, or a single label."""

    first: str
    options: Sequence[tuple[str, str]]
    """The loader and the strategy are the first ones."""
    labels: list[str]
    differs: int | None = None
    """The index of the option in which they differ."""
    values: list[str] = field(default_factory=list)

    def add(self, label: str, options: Sequence[tuple[str, str]]) -> bool:
        """Whether the label belongs to this family; if so, it is added."""
        if not options or [name for name, _ in options] != [name for name, _ in self.options]:
            return False
        different = [at for at, pair in enumerate(options) if pair != self.options[at]]
        if len(different) != 1 or different[0] < 2 or self.differs not in (None, different[0]):
            return False
        self.differs = different[0]
        self.values.append(options[self.differs][1])
        self.labels.append(label)
        return True

    @property
    def name(self) -> str:
        if self.differs is None:
            return self.first
        (_, loader), (_, strategy), *options = self.options
        said = [f"{name} {value}" for name, value in options]
        said[self.differs - 2] = ", ".join([said[self.differs - 2], *self.values])
        return f"{strategy} ({'; '.join(said)}){loader}"


def _options(label: str) -> list[tuple[str, str]]:
    """The loader, the strategy and the options of a label, each with its value; nothing if it has no options."""
    match = LABEL.fullmatch(label)
    if match is None:
        return []
    parts = [part.partition(" ") for part in match["options"].split(", ")]
    if not all(value for _, _, value in parts):
        return []
    return [("loader", match["loader"]), ("strategy", match["name"]), *((name, value) for name, _, value in parts)]
