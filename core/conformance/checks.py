"""What a check is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..plugins import Registered


class Broken(AssertionError):
    """A part of the contract that is not kept, as a sentence."""


@dataclass(frozen=True)
class Check:
    """One part of the contract, of one strategy or loader. Called, it raises Broken where that is not kept."""

    subject: Registered
    name: str
    run: Callable[[Registered], None]

    def __call__(self) -> None:
        try:
            self.run(self.subject)
        except Broken:
            raise
        except Exception as error:
            raise Broken(f"{type(error).__name__}: {error}") from error

    def __str__(self) -> str:
        return f"{self.subject.kind} {self.subject.name}: {self.name}"


def holds(kept: object, sentence: str) -> None:
    """Raise Broken with the sentence unless it is kept."""
    if not kept:
        raise Broken(sentence)
