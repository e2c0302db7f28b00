"""What is served, in words."""

from __future__ import annotations

from collections.abc import Iterable

MOST = 100  # ids that an error lists


def listed(names: Iterable[str], most: int = MOST) -> str:
    """The names with commas between, and of very many the first ones."""
    known = list(names)
    rest = f" …and {len(known) - most} more" if len(known) > most else ""
    return ", ".join(known[:most]) + rest
