"""The kinds of findings: those of a union, and those that modules of the report put into words."""

from __future__ import annotations

from types import ModuleType
from typing import Any, get_args

from core.report.prose.sentences import say
from core.results.recorded import Recorded


def kinds_in(union: Any) -> set[type]:
    """The types of a union, which may be nested and annotated."""
    if isinstance(union, type):
        return {union} if issubclass(union, Recorded) else set()
    return {kind for each in get_args(union) for kind in kinds_in(each)}


def kinds_said_in(*modules: ModuleType) -> set[type]:
    """The types that functions of these modules say."""
    names = {module.__name__ for module in modules}
    return {kind for kind, function in say.registry.items() if function.__module__ in names}
