"""Whether every strategy gave the same answers: timing a wrong answer is worth nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

WITHIN_DTYPE = 1e-4
ACROSS_DTYPES = 5e-3

Answer = tuple[str, float]  # label and score


class Agreement:
    """Holds every answer against the first one to the same text by the same model.

    Within one dtype labels are equal and scores within 1e-4. Across dtypes scores are within 5e-3, and
    a label may flip only where the first answer's margin is no larger than that.
    """

    def __init__(self, dtypes: Mapping[str, str]) -> None:
        """`dtypes` by trial label."""
        self._dtypes = dtypes
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
        dtype, answer = self._dtypes[trial], (sample["label"], sample["score"])
        first_trial, first = self._first.setdefault((model, text), (trial, answer))
        own = self._first_of_dtype.setdefault((dtype, model, text), answer)
        flipped = answer[0] != first[0] and abs(first[1] - 0.5) * 2 > ACROSS_DTYPES
        across = not flipped and (answer[0] != first[0] or abs(answer[1] - first[1]) <= ACROSS_DTYPES)
        within = answer[0] == own[0] and abs(answer[1] - own[1]) <= WITHIN_DTYPE
        if not (across and within):
            self.disagreements[trial] = (
                f"{trial} answers text {text + 1} with {answer[0]} {answer[1]:.6f}, where {first_trial} says"
                f" {first[0]} {first[1]:.6f}."
            )
