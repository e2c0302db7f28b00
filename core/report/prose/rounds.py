"""What several subjects say of rounds."""

from __future__ import annotations

from ..format import percent


def say_further_rounds(rounds: int | None, repeats: int | None = None, known: str = "") -> str:
    """How many more rounds would decide something, as far as that is known; `known` is what is known, if it is not."""
    if rounds is None:
        unknown = "The number of further rounds needed is unknown"
        return f"{unknown}: the difference is too small relative to its noise{known}."
    stated = "" if repeats is None else f" (repeats: {repeats})"
    return f"About {rounds} more rounds would decide it, if the true difference is as large as measured{stated}."


def say_all_processes_met(rounds: int, least: float, whose: str = "", target: str = "it") -> str:
    """A sentence without its full stop; `least` is the least share of all such processes."""
    processes = f"server processes of {whose}" if whose else "server processes"
    return f"All {rounds} {processes} met {target}, so at least {percent(least)} of all such processes do"
