"""A plugin that logs each load and unload."""

from __future__ import annotations

import logging

import pluggy

log = logging.getLogger("residency")
hookimpl = pluggy.HookimplMarker("residency")


@hookimpl
def after_model_load(strategy: str, loader: str, model_id: str, nbytes: int, seconds: float, reason: str) -> None:
    log.info("%s: loaded '%s' (%s, %d bytes) in %.3f s: %s", strategy, model_id, loader, nbytes, seconds, reason)


@hookimpl
def after_model_unload(strategy: str, model_id: str, seconds: float, reason: str) -> None:
    log.info("%s: freed '%s' after %.3f s: %s", strategy, model_id, seconds, reason)
