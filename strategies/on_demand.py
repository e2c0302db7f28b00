"""Load for each request, and free after it."""

from __future__ import annotations

from typing import ClassVar

import pluggy


class OnDemand:
    """Loads the model for each request and frees it after the answer.

    With `share`, requests that overlap in time use one load, and the last of them frees it.
    """

    name = "on-demand"
    grid: ClassVar = {"share": (False, True)}

    def __init__(self, *, share: bool = False) -> None:
        self.shared = share  # off by default: the cost of each load is what one wants to see

    def keep(self, model: object, now: float) -> float:
        return 0.0


@pluggy.HookimplMarker("residency")
def register_strategies() -> list[type[OnDemand]]:
    return [OnDemand]
