"""The first answer of each model to each request of a run, with which all later ones are compared."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import ResultsError
from .streams import MOST_APART

FIRST_ANSWERS = "answers.jsonl"


class FirstAnswers:
    """Keeps the first answers in a file beside the samples, so that a resumed run compares with the same ones."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FIRST_ANSWERS
        self._first: dict[tuple[str, int], Any] = {}
        if self._path.exists():
            content = self._path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]  # a killed runner may have torn the last line
            self._path.write_bytes(whole)
            for line in whole.splitlines():
                answer = json.loads(line)
                self._first[answer["model"], answer["text"]] = answer["answer"]

    def compare(self, model: str, text: int, answer: Any, apart: Callable[[Any, Any], float]) -> float:
        """How far the answer is from the first one, in units of what is tolerated; 0 for the first one itself.

        Raises ResultsError if the file cannot be written.
        """
        if (model, text) not in self._first:
            self._first[model, text] = answer
            try:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"model": model, "text": text, "answer": answer}, ensure_ascii=False) + "\n")
            except OSError as error:
                raise ResultsError(f"{self._path} cannot be written: {error.strerror}; free some space.") from error
        distance = apart(self._first[model, text], answer)
        return MOST_APART if math.isnan(distance) else min(MOST_APART, distance)
