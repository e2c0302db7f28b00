"""What is served, in words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .service import Service

MOST = 100  # ids that an error lists
MOST_IN_LOG = 3


def listed(names: Iterable[str], most: int = MOST) -> str:
    """The names with commas between, and of very many the first ones."""
    known = list(names)
    rest = f" …and {len(known) - most} more" if len(known) > most else ""
    return ", ".join(known[:most]) + rest


def announcement(service: Service, configured_by: str, seconds: float) -> str:
    """The line of a server that is ready: what it serves, where, and who said so; `seconds` are of its start."""
    models = listed([f"{model_id} ({reference})" for model_id, reference in service.engine.models.items()], MOST_IN_LOG)
    routes = listed([f"{each.name} at {each.registered.route} ({each.loader.name})" for each in service.strategies])
    return f"Ready after {seconds:.2f} s. Models: {models}. Strategies: {routes}. Configured by {configured_by}."
