"""Figures as text: each kind has one form."""

from __future__ import annotations

import pytest

from core.report.format import (
    amount,
    bare_milliseconds,
    between,
    decimals,
    listed,
    milliseconds,
    missing,
    number,
    rate,
    share,
    value_text,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.00176, "0.00176"), (201.4, "201"), (1230.0, "1,230"), (1e-7, "0.0000001"), (2e6, "2,000,000"), (0.0, "0")],
)
def test_a_number_has_three_digits_and_no_exponent(value: float, text: str) -> None:
    assert (number(value), amount(value)) == (text, text)


def test_a_number_may_have_more_digits() -> None:
    assert number(12345.6, 4) == "12,350"
    assert number(1.23456, 4) == "1.235"


@pytest.mark.parametrize(
    ("ms", "bare", "with_unit"),
    [(8.42, "8.4", "8.4 ms"), (19.96, "20.0", "20.0 ms"), (27.3, "27.3", "27 ms"), (113.4, "113", "113 ms")],
)
def test_milliseconds_in_a_column_and_in_a_sentence(ms: float, bare: str, with_unit: str) -> None:
    assert (bare_milliseconds(ms), milliseconds(ms)) == (bare, with_unit)


@pytest.mark.parametrize(("value", "text"), [(0.0, "0%"), (0.1254, "12.5%"), (0.9996, "100.0%"), (1.0, "100%")])
def test_a_share_is_in_per_cent(value: float, text: str) -> None:
    assert share(value) == text


def test_what_is_not_known_is_said_to_be_so() -> None:
    assert {amount(None), bare_milliseconds(None), decimals(None, 2), share(None), value_text(None)} == {"n/a"}


@pytest.mark.parametrize(("digits", "text"), [(0, "3"), (1, "2.7"), (2, "2.72")])
def test_decimals_are_as_many_as_the_column_has(digits: int, text: str) -> None:
    assert decimals(2.718, digits) == text


@pytest.mark.parametrize(("value", "text"), [(["avx2", "bf16"], "avx2, bf16"), ([], ""), ("2.13", "2.13"), (4, "4")])
def test_a_value_is_shown_as_it_was_recorded(value: str | float | list[str], text: str) -> None:
    assert value_text(value) == text


@pytest.mark.parametrize(
    ("words", "text"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")]
)
def test_a_list_ends_with_and(words: list[str], text: str) -> None:
    assert listed(words) == text


def test_rates_are_an_hour_and_from_two_a_second_on_also_a_second() -> None:
    assert rate(451.2) == "451 requests an hour"
    assert rate(7199.0) == "7,200 requests an hour"
    assert rate(7200.0) == "7,200 requests an hour (2 a second)"


def test_rounds_and_intervals() -> None:
    assert (missing(1), missing(2)) == ("1 is missing", "2 are missing")
    assert between((311.2, 562.0)) == " (95 % interval 311 to 562)"
    assert between(None) == ""
