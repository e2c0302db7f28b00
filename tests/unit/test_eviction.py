"""Belady's choice, against every choice that there is."""

from __future__ import annotations

from functools import cache

from hypothesis import given
from hypothesis import strategies as st

from core.planning.eviction import belady_loads, lru_loads

ASKED = st.lists(st.integers(0, 4), max_size=12)
CAPACITY = st.integers(1, 3)


def fewest_loads(asked: list[int], capacity: int) -> int:
    """By trying every victim at every load."""

    @cache
    def search(position: int, kept: frozenset[int]) -> int:
        if position == len(asked):
            return 0
        model = asked[position]
        if model in kept:
            return search(position + 1, kept)
        if len(kept) < capacity:
            return 1 + search(position + 1, kept | {model})
        return 1 + min(search(position + 1, kept - {victim} | {model}) for victim in kept)

    return search(0, frozenset())


@given(ASKED, CAPACITY)
def test_belady_needs_the_fewest_loads(asked: list[int], capacity: int) -> None:
    assert belady_loads(asked, capacity) == fewest_loads(asked, capacity)


@given(ASKED, CAPACITY)
def test_the_lru_needs_what_a_list_says(asked: list[int], capacity: int) -> None:
    recent: list[int] = []
    loads = 0
    for model in asked:
        loads += model not in recent
        recent = [model, *(other for other in recent if other != model)][:capacity]
    assert lru_loads(asked, capacity) == loads >= belady_loads(asked, capacity)
