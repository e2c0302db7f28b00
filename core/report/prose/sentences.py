"""The function that says a finding of any kind."""

from __future__ import annotations

from functools import singledispatch

from ...results.recorded import Recorded


@singledispatch
def say(finding: Recorded) -> str:
    """A sentence; of reasons, rates, capacities and delays, a part of one.

    Each kind is said by a function that the module of its subject registers here.
    """
    raise TypeError(f"nothing says {type(finding).__name__}")
