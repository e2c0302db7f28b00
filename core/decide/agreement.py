"""Whether every strategy gave the same answers: timing a wrong answer is worth nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

WITHIN_DTYPE = 1e-4
ACROSS_DTYPES = 5e-3

Scores = Mapping[tuple[str, int], float]  # by label and, since labels may be alike, its number among those
Answer = Sequence[tuple[str, float]]  # labels and their scores, the best first


class Agreement:
    """Holds every answer against the first one to the same text by the same model, by the scores of all its labels.

    Within one dtype scores are within 1e-4, across dtypes within 5e-3; of scores above 1, which regressions have, that
    is relative. Where only the best label is told, another one may take its place across dtypes if the first answer's
    margin is no larger.
    """

    def __init__(self, dtypes: Mapping[str, str], most_labels: int = 1) -> None:
        """`dtypes` by trial label; an answer tells at most `most_labels`, the best."""
        self._dtypes = dtypes
        self._most_labels = most_labels
        self._first: dict[tuple[str, int], tuple[str, Answer]] = {}
        self._first_of_dtype: dict[tuple[str, str, int], Answer] = {}
        self.disagreements: dict[str, str] = {}
        """The first disagreement of each trial, as a sentence."""

    def check(self, samples: Iterable[Mapping[str, Any]]) -> None:
        for sample in samples:
            if sample["status"] == 200 and sample["trial"] not in self.disagreements:
                self._check(sample)

    def _check(self, sample: Mapping[str, Any]) -> None:
        trial, model, text = sample["trial"], sample["model"], sample["text"]
        dtype, answer = self._dtypes[trial], answer_of(sample)
        first_trial, first = self._first.setdefault((model, text), (trial, answer))
        own = self._first_of_dtype.setdefault((dtype, model, text), answer)
        across = apart(first, answer, self._most_labels) <= ACROSS_DTYPES or _is_near_tie(first, answer)
        if not (across and apart(own, answer, self._most_labels) <= WITHIN_DTYPE):
            label, score, of_first = _furthest(first, answer)
            self.disagreements[trial] = (
                f"{trial} answers text {text + 1} with {label} {score:.6f}, where {first_trial} says {of_first}."
            )


def answer_of(sample: Mapping[str, Any]) -> Answer:
    """The labels and scores of an answered request; older runs have the best label only."""
    return [(label, score) for label, score in sample.get("top") or [(sample["label"], sample["score"])]]


def apart(one: Answer, other: Answer, most_labels: int) -> float:
    """The largest difference between the scores of a label: relative above 1, and infinite where labels differ.

    Of many labels an answer tells the best `most_labels`; one that it does not tell has at most the lowest score that
    it does.
    """
    ours, theirs = _scores(one), _scores(other)
    are_all = min(len(ours), len(theirs)) < most_labels
    if ours.keys() != theirs.keys() and (are_all or not ours.keys() & theirs.keys()):
        return float("inf")
    lowest = min(ours.values()), min(theirs.values())
    pairs = ((ours.get(key, lowest[0]), theirs.get(key, lowest[1])) for key in {**ours, **theirs})
    return max(abs(a - b) / max(1.0, abs(a), abs(b)) for a, b in pairs)


def _is_near_tie(first: Answer, other: Answer) -> bool:
    return len(first) == len(other) == 1 and first[0][0] != other[0][0] and abs(first[0][1] - 0.5) * 2 <= ACROSS_DTYPES


def _furthest(first: Answer, answer: Answer) -> tuple[str, float, str]:
    """The label whose score is furthest from the first answer's, with both."""
    ours, theirs = _scores(answer), _scores(first)
    shared = [key for key in ours if key in theirs]
    if answer[0][0] != first[0][0] or not shared:
        return *answer[0], f"{first[0][0]} {first[0][1]:.6f}"
    worst = max(shared, key=lambda key: abs(ours[key] - theirs[key]))
    return worst[0], ours[worst], f"{worst[0]} {theirs[worst]:.6f}"


def _scores(answer: Answer) -> Scores:
    seen: Counter[str] = Counter()
    scores = {}
    for label, score in answer:
        scores[label, seen[label]] = score
        seen[label] += 1
    return scores
