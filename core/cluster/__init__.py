"""Several nodes behind HAProxy: each is the app as it is, and a request goes to the home of its model."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """`build`, for `serve run core.cluster:build`. Ray is imported when it is asked for."""
    if name == "build":
        from .ray import build

        return build
    raise AttributeError(name)
