"""Labels that differ in the value of one option are said as one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.planning.setting import Setting
from core.plugins import load_plugins
from core.report.families import families, in_families

PLUGINS = load_plugins()


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([], []),
        (["a", "b"], ["a", "b"]),
        (["a (ttl 1s)"], ["a (ttl 1s)"]),
        (["a (ttl 1s)", "b", "a (ttl 10s)", "a (ttl 1min)"], ["a (ttl 1s, 10s, 1min)", "b"]),
        (["a (ttl 1s)", "b (ttl 1s)"], ["a (ttl 1s)", "b (ttl 1s)"]),
        (["a (ttl 1s)", "a (size 1)"], ["a (ttl 1s)", "a (size 1)"]),
        (["a (x 1, y 1)", "a (x 2, y 1)", "a (x 1, y 2)"], ["a (x 1, 2; y 1)", "a (x 1, y 2)"]),
        (["a (x 1, y 1)", "a (x 2, y 2)"], ["a (x 1, y 1)", "a (x 2, y 2)"]),
        (["a (pin m and n)", "a (pin m)"], ["a (pin m and n, m)"]),
        (["a (x 1), mapped", "a (x 2), mapped"], ["a (x 1, 2), mapped"]),
        (["a (x 1), mapped", "a (x 1), subprocess"], ["a (x 1), mapped", "a (x 1), subprocess"]),
        (["a (x 1), mapped (n 2)", "a (x 2), mapped (n 2)"], ["a (x 1, 2), mapped (n 2)"]),
        (["a, mapped (n 1)", "a, mapped (n 2)"], ["a, mapped (n 1)", "a, mapped (n 2)"]),
        (["a (x {'b': 1, 2: 3})", "a (x 1)"], ["a (x {'b': 1, 2: 3})", "a (x 1)"]),
    ],
)
def test_families(labels: list[str], said: list[str]) -> None:
    assert in_families(labels) == said


LABELS = ["c", *(f"{name} (x {x}, y {y})" for name in "ab" for x in range(3) for y in range(3))]


@given(st.lists(st.sampled_from(LABELS), unique=True))
def test_every_label_is_in_one_family(labels: list[str]) -> None:
    found = families(labels)
    assert sorted(label for each in found.values() for label in each) == sorted(labels)


def test_the_labels_of_settings_are_understood() -> None:
    registered = PLUGINS.strategy("keep-alive")
    labels = [Setting(registered, {"ttl": ttl, "memory_budget": "1GiB"}).label for ttl in ("1s", 10, "forever")]
    assert in_families(labels) == ["keep-alive (ttl 1s, 10, forever; memory_budget 1GiB)"]
