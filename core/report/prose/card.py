"""The card in words, its sentences in the order in which they are read."""

from __future__ import annotations

from typing import NamedTuple

from ...results.card import Card, Settings
from ...results.flips import RATE_FLIPS
from ...results.summary import Summary
from .bursts import say_bursts
from .sentences import say
from .settings import settings_to_paste


class CardText(NamedTuple):
    """The card in words."""

    recommended: str | None
    runner_up: str | None
    sentences: list[str]
    settles: str | None
    """What would settle an open answer, unless a sentence says it already."""
    settings: list[SettingsText]


class SettingsText(NamedTuple):
    """Settings to paste."""

    label: str
    where: str
    """The rates for which they are recommended; empty if those are the run's own."""
    yaml: str


def card_in_words(summary: Summary) -> CardText:
    """With what bursts change below the last rate at which the answer flips, and with the prices at the end."""
    card, findings = summary.card, [*summary.card.answer, *summary.card.notes]
    told = [say(finding) for finding in findings]
    if card.bursts is not None:
        last = max((i for i, finding in enumerate(findings) if isinstance(finding, RATE_FLIPS)), default=-1)
        told.insert(last + 1, say_bursts(card.bursts))
    prices = [say(summary.economics.prices)] if summary.economics else []
    sentences = [*_headline(card), *told, *prices]
    settles = say(card.settles) if card.settles else None
    is_said = settles is not None and settles in " ".join(sentences)
    settings = [settings_in_words(each) for each in card.settings]
    return CardText(card.recommended, card.runner_up, sentences, None if is_said else settles, settings)


def settings_in_words(settings: Settings) -> SettingsText:
    """With comments that say how to serve them."""
    where = say(settings.rates) if settings.rates else ""
    text = settings_to_paste(_side(settings), settings.route, settings.yaml, settings.lifecycle)
    return SettingsText(settings.label, where, text)


def _headline(card: Card) -> list[str]:
    """What is recommended, and for which rates; nothing without a recommendation."""
    if card.recommended is None:
        return []
    runner_up = f"; the runner-up is {card.runner_up}" if card.runner_up and len(card.settings) == 1 else ""
    return [f"Recommended: {'; '.join(map(_side, card.settings))}{runner_up}."]


def _side(settings: Settings) -> str:
    return f"{settings.label}, {say(settings.rates)}" if settings.rates else settings.label
