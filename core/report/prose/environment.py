"""What is said of the environments of two measurements."""

from __future__ import annotations

from ...results.environment import Difference


def say_difference(difference: Difference) -> str:
    """The end of a sentence: `torch became 2.13.1 (was 2.13.0)`."""
    return f"{difference.name} became {difference.now} (was {difference.was})"
