"""Which of our YAML files one is, so that one that was given in another's place is told what it is for."""

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
    """Raises YamlError where the file is one of another kind."""
    found = _kind(document.value)
    if found not in (None, wanted):
        raise document.error((), f"is {NAMES[found]}, not {NAMES[wanted]}; {REMEDIES[found].format(document.path)}")


def _kind(value: object) -> Kind | None:
    """None where it cannot be told: then its keys are checked, and the first wrong one is named."""
    if not isinstance(value, dict):
        return None
    keys = set(value)
    if keys & KNOWN_BY["plan"]:
        return "plan"
    if keys & KNOWN_BY["experiment"]:
        return "experiment"
    # What both have tells nothing, but an experiment has a name.
    if keys & (KNOWN_BY["settings"] | {"models", "strategies"}) and "name" not in keys:
        return "settings"
    return None
