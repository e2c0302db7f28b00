"""Load all models before the first request, and keep them."""

from __future__ import annotations

from collections.abc import Mapping

import pluggy


class Persistent:
    """Keeps every model in memory from before the first request until the server ends.

    If a model cannot be loaded, the others are served, and a request for it tries again. If none can be loaded, the
    server does not start.
    """

    name = "persistent"
    route = "/predict"

    def start(self, models: Mapping[str, int]) -> Mapping[str, int]:
        return models


@pluggy.HookimplMarker("residency")
def register_strategies() -> list[type[Persistent]]:
    return [Persistent]
