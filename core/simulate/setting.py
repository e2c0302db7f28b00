"""A strategy with its options, as the simulator understands it: what can be set is when a model leaves memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..quantities import duration

STRATEGIES = ("persistent", "on-demand", "lru-cached", "keep-alive")


@dataclass(frozen=True)
class Setting:
    """One point of the grid."""

    strategy: str
    options: Mapping[str, Any] = field(default_factory=dict)
    """As an experiment's YAML has them; `ttl` in seconds, `forever`, or a mapping by model id."""
    name: str = ""
    """How options that are long are told in short, such as `ttl k/m`."""

    @property
    def label(self) -> str:
        """As the table shows it."""
        options = self.name or ", ".join(f"{key} {shown(key, value)}" for key, value in self.options.items())
        return f"{self.strategy} ({options})" if options else self.strategy

    @property
    def preloads(self) -> bool:
        """Whether every model is in memory before the first request."""
        return self.strategy == "persistent"

    @property
    def shares(self) -> bool:
        """Whether requests that wait together may be computed together, under one acquire."""
        return self.strategy != "on-demand" or bool(self.options.get("share"))

    @property
    def capacity(self) -> int | None:
        """How many models fit."""
        found = self.options.get("capacity")
        return None if found is None else int(found)

    @property
    def budget_mib(self) -> float | None:
        """How many MiB of weights fit."""
        found = self.options.get("memory_budget")
        return None if found is None else int(found) / (1 << 20)

    @property
    def has_timeout(self) -> bool:
        """Whether it frees a model after a time that a replay at another speed would distort."""
        return self.strategy == "keep-alive" and self.options.get("ttl") not in (0, "forever")

    def timeouts(self, models: list[str]) -> list[float]:
        """Seconds after which each of the models is freed."""
        if self.strategy != "keep-alive":
            return [0.0 if self.strategy == "on-demand" else math.inf] * len(models)
        ttl = self.options["ttl"]
        each = [ttl[model] for model in models] if isinstance(ttl, Mapping) else [ttl] * len(models)
        return [math.inf if value == "forever" else float(value) for value in each]


def shown(key: str, value: Any) -> str:
    """An option's value in the table."""
    if key == "ttl" and isinstance(value, int | float):
        return duration(float(value))
    if key == "memory_budget":
        return f"{value / (1 << 20):g} MiB"
    return str(value).lower() if isinstance(value, bool) else str(value)
