"""Load a model for each request, and free it afterwards."""

from __future__ import annotations

from typing import Annotated, ClassVar

import pluggy
from pydantic import Field

Share = Annotated[
    bool, Field(description="Requests that overlap in time use one load, and the last of them frees the model.")
]


class OnDemand:
    """Loads the model for each request and frees it after the answer.

    With `share`, requests that overlap in time share one load, and the model is freed after the last of them.
    """

    name = "on-demand"
    grid: ClassVar = {"share": (False, True)}

    def __init__(self, *, share: Share = False) -> None:
        self.shared = share  # off by default, so that each request shows the cost of a load

    def keep(self, model: object, now: float) -> float:
        return 0.0


@pluggy.HookimplMarker("residency")
def register_strategies() -> list[type[OnDemand]]:
    return [OnDemand]
