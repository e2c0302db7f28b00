"""Whether every strategy gave the same answers: timing a wrong answer is worth nothing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ..results.records import OK, Sample
from ..results.warnings import AnyDisagreement, ApartAnswer, Disagreement, OtherLabels

WITHIN_DTYPE = 1e-4  # of scores
ACROSS_DTYPES = 0.97  # the share of answers whose label is the same
NEAR_TIE = 5e-3  # two labels whose scores are no further apart may stand for each other in another dtype

Question = tuple[str, int]  # a model, and the index of a text
Scores = Mapping[tuple[str, int], float]  # by label and, since labels may be alike, its number among those
Answer = Sequence[tuple[str, float]]  # labels and their scores, the best first


class Agreement:
    """Compares every answer with the first one to the same text by the same model.

    In float32 the scores of all labels must agree within 1e-4, whatever computes them; scores above 1, as regressions
    have, must agree relative to their size. In another dtype each loader rounds in its own way, so that its model
    counts as another one: its answers must agree as closely with each other, and with the answers of other models only
    in the best label.

    Answers without labels were compared when they came, by their task's own distance, or by their words.
    """

    def __init__(self, computed_in: Mapping[str, str], most_labels: int = 1) -> None:
        """`computed_in` names, for each trial, what trials must share to give equal scores; an answer has at most
        `most_labels` labels, the best ones.
        """
        self._computed_in = computed_in
        self._most_labels = most_labels
        self._first: dict[Question, tuple[str, Answer]] = {}
        self._first_alike: dict[tuple[str, Question], tuple[str, Answer]] = {}
        self._same_label: defaultdict[str, dict[Question, bool]] = defaultdict(dict)
        self.disagreements: dict[str, AnyDisagreement] = {}
        """The first disagreement of each trial, by its label."""

    def check(self, samples: Iterable[Sample]) -> None:
        for sample in samples:
            if sample.status != OK or sample.trial in self.disagreements:
                continue
            if sample.answer:
                self._check(sample)
            elif sample.apart is not None and sample.apart > 1:
                self.disagreements[sample.trial] = ApartAnswer(
                    trial=sample.trial, model=sample.model, text=sample.text, apart=sample.apart
                )

    def _check(self, sample: Sample) -> None:
        trial, question = sample.trial, (sample.model, sample.text)
        computed_in, answer = self._computed_in[trial], sample.answer
        other, first = self._first.setdefault(question, (trial, answer))
        if self._computed_in[other] != computed_in:
            self._same_label[trial].setdefault(question, _is_same_label(first, answer))
            other, first = self._first_alike.setdefault((computed_in, question), (trial, answer))
        if apart(first, answer, self._most_labels) > WITHIN_DTYPE:
            (label, score), (other_label, other_score) = _furthest(first, answer)
            self.disagreements[trial] = Disagreement(
                trial=trial,
                text=sample.text,
                label=label,
                score=score,
                other=other,
                other_label=other_label,
                other_score=other_score,
            )

    def warnings(self) -> Iterator[OtherLabels]:
        """A warning of each trial that gives too many other labels than one in another dtype."""
        for trial, same in self._same_label.items():
            count = sum(same.values())
            if count / len(same) < ACROSS_DTYPES:
                other, _ = self._first[next(iter(same))]
                yield OtherLabels(
                    trial=trial,
                    same=count,
                    answers=len(same),
                    least_share=ACROSS_DTYPES,
                    computed_in=self._computed_in[trial],
                    other=other,
                    other_computed_in=self._computed_in[other],
                )


def apart(one: Answer, other: Answer, most_labels: int) -> float:
    """The largest difference between the scores of a label: relative above 1, and infinite if labels differ.

    An answer has only its best `most_labels` labels; the score of any other label is at most its lowest score, which
    stands for it.
    """
    ours, theirs = _scores(one), _scores(other)
    are_all = min(len(ours), len(theirs)) < most_labels
    if ours.keys() != theirs.keys() and (are_all or not ours.keys() & theirs.keys()):
        return float("inf")
    lowest = min(ours.values()), min(theirs.values())
    pairs = ((ours.get(key, lowest[0]), theirs.get(key, lowest[1])) for key in {**ours, **theirs})
    return max(abs(a - b) / max(1.0, abs(a), abs(b)) for a, b in pairs)


def _is_same_label(first: Answer, answer: Answer) -> bool:
    """Whether the answer's best label is the first answer's too, or scored nearly as high there."""
    label, best = answer[0][0], first[0]
    return label == best[0] or best[1] - dict(first).get(label, -float("inf")) <= NEAR_TIE


def _furthest(first: Answer, answer: Answer) -> tuple[tuple[str, float], tuple[str, float]]:
    """The label whose score is furthest from the first answer's: of the answer, and of the first one."""
    ours, theirs = _scores(answer), _scores(first)
    shared = [key for key in ours if key in theirs]
    if answer[0][0] != first[0][0] or not shared:
        return answer[0], first[0]
    worst = max(shared, key=lambda key: abs(ours[key] - theirs[key]))
    return (worst[0], ours[worst]), (worst[0], theirs[worst])


def _scores(answer: Answer) -> Scores:
    seen: Counter[str] = Counter()
    scores = {}
    for label, score in answer:
        scores[label, seen[label]] = score
        seen[label] += 1
    return scores
