"""Telling experiments, plans and settings apart, so that a file given in the place of another gets a helpful error."""

from __future__ import annotations

from typing import Literal

from ..names import APP, COMMAND
from .strict_yaml import Document

Kind = Literal["experiment", "plan", "settings"]
KNOWN_BY = {  # keys that the other kinds do not have
    "plan": {"profile", "grid", "confirm"},
    "experiment": {"texts", "repetitions", "repeats"},
    "settings": {"max_body", "max_queue", "request_timeout", "allowed_hosts", "token", "log", "capture", "batching"},
}
NAMES = {"experiment": "an experiment", "plan": "a plan", "settings": "a server's settings"}
REMEDIES = {
    "experiment": f"run it with: {COMMAND} {{}}",
    "plan": f"simulate it with: {COMMAND} plan {{}}",
    "settings": f"serve it with: RESIDENCY_CONFIG={{}} uvicorn {APP}",
}


def check_kind(document: Document, wanted: Kind) -> None:
    """Raise YamlError if the file is of another kind, with the command for that kind."""
    kind = _kind(document.value)
    if kind not in (None, wanted):
        raise document.error((), f"is {NAMES[kind]}, not {NAMES[wanted]}; {REMEDIES[kind].format(document.path)}")


def _kind(value: object) -> Kind | None:
    """The kind of the file with that content; None if its keys do not tell."""
    if not isinstance(value, dict):
        return None
    keys = set(value)
    if keys & KNOWN_BY["plan"]:
        return "plan"
    if keys & KNOWN_BY["experiment"]:
        return "experiment"
    # Experiments have these keys too, but they also have a name.
    if keys & (KNOWN_BY["settings"] | {"models", "strategies"}) and "name" not in keys:
        return "settings"
    return None
