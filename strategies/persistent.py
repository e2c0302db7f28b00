"""Load everything before the first request, and keep it."""

from __future__ import annotations

from collections.abc import Mapping

import pluggy


class Persistent:
    """Keeps every model in memory from before the first request until the server ends.

    A model that fails to load keeps none of the others from being served; it is tried again when it is
    asked for. When all fail, the server does not start.
    """

    name = "persistent"
    route = "/predict"

    def start(self, models: Mapping[str, int]) -> Mapping[str, int]:
        return models


@pluggy.HookimplMarker("residency")
def register_strategies() -> list[type[Persistent]]:
    return [Persistent]
