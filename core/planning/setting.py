"""A strategy with its options, of which a plan compares several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue

from ..costs.prices import Prices
from ..plugins import Registered
from ..residency.decisions import Decisions


@dataclass(frozen=True)
class Setting:
    """One point of the grid."""

    registered: Registered
    options: Mapping[str, JsonValue] = field(default_factory=dict)
    """As the plan's YAML has them."""
    is_default: bool = False
    """Whether it comes from the strategy's own grid, not from the plan."""

    @property
    def strategy(self) -> str:
        return self.registered.name

    @property
    def route(self) -> str:
        return self.registered.route

    @property
    def label(self) -> str:
        """As the table shows it."""
        options = ", ".join(f"{key} {_shown(value)}" for key, value in self.options.items())
        return f"{self.strategy} ({options})" if options else self.strategy

    def decisions(self, prices: Prices | None = None) -> Decisions:
        """The strategy itself, as a server would start it: at these prices, if it takes prices and is given none.

        Raises OptionError, and what the strategy raises.
        """
        options = self.registered.with_prices(self.options, vars(prices) if prices else {})
        return Decisions(self.registered.cls(**self.registered.validate(options)), self.strategy)


def _shown(value: JsonValue) -> str:
    """An option's value in the table, as YAML has it."""
    if isinstance(value, list):
        return " and ".join(map(_shown, value))
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
