"""Checks, before any model is loaded, that models fit within the limits of a strategy."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pydantic import ByteSize

from .decisions import Decisions


def check_limits(decisions: Decisions, sizes: Mapping[str, int], known: Collection[str]) -> None:
    """Raise ValueError for a model that can never fit, or for a pinned model that does not exist."""
    if unknown := sorted(set(decisions.pinned) - set(known)):
        raise ValueError(f"there is no model '{unknown[0]}' to pin; models: {', '.join(known)}")
    if decisions.budget is None:
        return
    pinned = sum(sizes.get(model_id, 0) for model_id in decisions.pinned)
    for model_id, nbytes in sizes.items():
        if pinned + (0 if model_id in decisions.pinned else nbytes) > decisions.budget:
            pins = f" beside {ByteSize(pinned).human_readable()} of pinned models" if pinned else ""
            raise ValueError(
                f"model '{model_id}' takes {ByteSize(nbytes).human_readable()}{pins}, more than the memory_budget of"
                f" {ByteSize(decisions.budget).human_readable()}; raise the budget or leave the model out"
            )


def start_strategy(
    decisions: Decisions, sizes: Mapping[str, int], known: Collection[str], guessed: Collection[str] = ()
) -> list[str]:
    """Start a strategy. Returns the ids of the models that it wants loaded before the server is ready.

    `sizes` are bytes by model id, without models whose size cannot be read; `known` are all model ids. The sizes of
    models that are `guessed` are not checked. Raises ValueError if models do not fit or do not exist, and what the
    strategy raises.
    """
    check_limits(decisions, {model_id: size for model_id, size in sizes.items() if model_id not in guessed}, known)
    preloads = decisions.start(sizes)
    if unknown := [model_id for model_id in preloads if model_id not in known]:
        raise ValueError(f"there is no model '{unknown[0]}' to load; models: {', '.join(known)}")
    return preloads
