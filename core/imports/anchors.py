"""YAML with anchors, aliases and merge keys, which other programs' files may have and ours may not."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from typing import Any

import yaml

from ..config.strict_yaml import Document, Path_, Place

MERGE = "<<"


def expand(events: Iterator[Any]) -> Iterator[Any]:
    """The parser's events with each alias replaced by what it stands for. Raises yaml.MarkedYAMLError.

    How much that may become is limited by who builds the values.
    """
    known: dict[str, list[Any]] = {}
    open_: list[tuple[str, list[Any], int]] = []  # name, events and depth of each anchor that has not ended
    depth = 0
    for event in events:
        for _, recorded, _ in open_:
            recorded.append(event)
        name = getattr(event, "anchor", None)
        if isinstance(event, yaml.AliasEvent):
            yield from _replay(event, known)
            continue
        if name is not None:
            open_.append((name, [event], depth))
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        while open_ and open_[-1][2] == depth and isinstance(event, yaml.ScalarEvent | yaml.CollectionEndEvent):
            ended, recorded, _ = open_.pop()
            known[ended] = recorded
        yield _without_anchor(event)


def _replay(alias: Any, known: dict[str, list[Any]]) -> Iterator[Any]:
    if alias.anchor not in known:
        raise yaml.MarkedYAMLError(problem="found an alias without its anchor", problem_mark=alias.start_mark)
    for event in known[alias.anchor]:
        if isinstance(event, yaml.AliasEvent):
            yield from _replay(event, known)
        else:
            yield _without_anchor(event)


def _without_anchor(event: Any) -> Any:
    if getattr(event, "anchor", None) is None:
        return event
    plain = copy(event)
    plain.anchor = None
    return plain


def merge(document: Document) -> Document:
    """The document with the mappings under `<<` merged into those that hold them, whose own keys win."""
    places: dict[Path_, Place] = {(): document.place(())}
    value = _merged(document.value, (), (), document, places)
    return Document(document.path, value, places)


def _merged(value: Any, old: Path_, new: Path_, document: Document, places: dict[Path_, Place]) -> Any:
    """The value at `old` with merge keys resolved; its places are noted under `new`."""
    if isinstance(value, list):
        return [_at(part, (*old, i), (*new, i), document, places) for i, part in enumerate(value)]
    if not isinstance(value, dict):
        return value
    result: dict[str, Any] = {}
    for key, part in value.items():
        if key != MERGE:
            result[key] = _at(part, (*old, key), (*new, key), document, places)
    others = value.get(MERGE, [])
    for i, other in enumerate(others if isinstance(others, list) else [others]):
        where = (*old, MERGE, i) if isinstance(others, list) else (*old, MERGE)
        if not isinstance(other, dict):
            raise document.error(where, "must be a mapping, or a list of mappings, to merge.")
        inherited: dict[Path_, Place] = {}
        found = _merged(other, where, new, document, inherited)
        for key in (key for key in found if key not in result):
            result[key] = found[key]
            at = (*new, key)
            places.update({place: line for place, line in inherited.items() if place[: len(at)] == at})
    return result


def _at(part: Any, old: Path_, new: Path_, document: Document, places: dict[Path_, Place]) -> Any:
    places[new] = document.place(old)
    return _merged(part, old, new, document, places)
