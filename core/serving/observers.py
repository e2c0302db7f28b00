"""Calls the hooks of plugins that observe loads and unloads."""

from __future__ import annotations

import logging
from typing import Any

import pluggy

from ..residency.events import Loaded, Unloaded
from .events import Event

log = logging.getLogger("residency")
HOOKS = {Loaded: "after_model_load", Unloaded: "after_model_unload"}


class Observers:
    """The observers of all plugins."""

    def __init__(self, hooks: pluggy.HookRelay) -> None:
        self._hooks = hooks

    def notify(self, event: Event) -> None:
        """Call every observer of the event. An error of one is logged, and does not affect the others."""
        if (hook := HOOKS.get(type(event))) is None:
            return
        values: dict[str, Any] = event._asdict()
        for observer in getattr(self._hooks, hook).get_hookimpls():
            try:
                observer.function(*(values[name] for name in observer.argnames))
            except Exception:
                log.exception("Plugin %s: %s failed", observer.plugin_name, hook)
