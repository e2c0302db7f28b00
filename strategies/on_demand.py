"""Load a model for each request, and free it afterwards."""

from __future__ import annotations

from typing import ClassVar

import pluggy


class OnDemand:
    """Loads the model for each request and frees it after the answer.

    With `share`, requests that overlap in time share one load, and the model is freed after the last of them.
    """

    name = "on-demand"
    grid: ClassVar = {"share": (False, True)}

    def __init__(self, *, share: bool = False) -> None:
        self.shared = share  # off by default, so that each request shows the cost of a load

    def keep(self, model: object, now: float) -> float:
        return 0.0


@pluggy.HookimplMarker("residency")
def register_strategies() -> list[type[OnDemand]]:
    return [OnDemand]
