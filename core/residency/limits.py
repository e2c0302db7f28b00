"""Whether models fit under the limits of a strategy, before any of them is loaded."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pydantic import ByteSize

from .decisions import Decisions


def check_limits(decisions: Decisions, sizes: Mapping[str, int], known: Collection[str]) -> None:
    """Raise ValueError for a model that can never fit, or for a pinned one that there is not."""
    if unknown := sorted(set(decisions.pinned) - set(known)):
        raise ValueError(f"there is no model '{unknown[0]}' to pin; models: {', '.join(known)}")
    if decisions.budget is None:
        return
    pinned = sum(sizes.get(model_id, 0) for model_id in decisions.pinned)
    for model_id, nbytes in sizes.items():
        if pinned + (0 if model_id in decisions.pinned else nbytes) > decisions.budget:
            pins = f" beside {ByteSize(pinned).human_readable()} that are pinned" if pinned else ""
            raise ValueError(
                f"model '{model_id}' takes {ByteSize(nbytes).human_readable()}{pins}, more than the memory_budget of"
                f" {ByteSize(decisions.budget).human_readable()}; raise the budget or leave the model out"
            )


def start(decisions: Decisions, sizes: Mapping[str, int], known: Collection[str]) -> list[str]:
    """Start a strategy on models of these sizes, of those that are known; returns what it wants loaded at once.

    Raises ValueError for what can never be kept, and what the strategy raises.
    """
    check_limits(decisions, sizes, known)
    preloads = decisions.start(sizes)
    if unknown := [model_id for model_id in preloads if model_id not in known]:
        raise ValueError(f"there is no model '{unknown[0]}' to load; models: {', '.join(known)}")
    return preloads
