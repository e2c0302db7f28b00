"""The type of a check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..plugins import Registered


class ContractBroken(AssertionError):
    """A part of the contract is not kept. The message is a sentence."""


@dataclass(frozen=True)
class Check:
    """A check of one part of the contract, for one strategy or loader. A call raises ContractBroken if it fails."""

    subject: Registered
    name: str
    run: Callable[[Registered], None]

    def __call__(self) -> None:
        try:
            self.run(self.subject)
        except ContractBroken:
            raise
        except Exception as error:
            raise ContractBroken(f"{type(error).__name__}: {error}") from error

    def __str__(self) -> str:
        return f"{self.subject.kind} {self.subject.name}: {self.name}"


def require(condition: object, sentence: str) -> None:
    """Raise ContractBroken with the sentence unless the condition is true."""
    if not condition:
        raise ContractBroken(sentence)
