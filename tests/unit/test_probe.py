"""A model is probed before it first answers, once for its files, its loader and the versions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from core.checkpoints.checkpoint import identity
from core.contracts import Prediction
from core.errors import ModelCrashed, ModelReferenceError, NoTokens
from core.loaders.probe import Probes, probe

Answering = Callable[[Sequence[str]], list[tuple[str, float]]]


class Model:
    """Answers as it is told."""

    nbytes = 0

    def __init__(self, answer: Answering) -> None:
        self._answer = answer
        self.asked: list[list[str]] = []

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        self.asked.append(list(texts))
        return [Prediction.of(answer) for answer in self._answer(texts)]

    def close(self) -> None:
        pass


class Loader:
    name: ClassVar[str] = "probed"

    def size(self, checkpoint: Path) -> int:
        return 0

    def load(self, checkpoint: Path) -> Model:
        return Model(sound)


def sound(texts: Sequence[str]) -> list[tuple[str, float]]:
    return [("A", 1 / (2 + len(text))) for text in texts]


def test_asks_one_text_two_of_different_length_an_empty_one_and_one_over_the_limit() -> None:
    model = Model(sound)
    assert probe(model) == []
    lengths = [[len(text) for text in texts] for texts in model.asked]
    assert any(len(each) == 1 and 0 < each[0] < 100 for each in lengths)
    assert any(len(each) == 2 and 0 < each[0] < each[1] for each in lengths)
    assert [0] in lengths
    assert any(max(each) > 5000 for each in lengths)


def _fail_at(matches: Callable[[Sequence[str]], bool], error: Exception) -> Answering:
    def answer(texts: Sequence[str]) -> list[tuple[str, float]]:
        if matches(texts):
            raise error
        return sound(texts)

    return answer


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (_fail_at(lambda texts: True, IndexError("out of range")), "cannot answer a text: out of range"),
        (_fail_at(lambda texts: len(texts) > 1, ValueError("no padding")), "cannot answer two texts .*: no padding"),
        (_fail_at(lambda texts: texts == [""], KeyError()), "cannot answer an empty text: KeyError"),
        (_fail_at(lambda texts: len(texts[0]) > 5000, IndexError("512")), "cannot answer a text over its limit: 512"),
        (_fail_at(lambda texts: len(texts[0]) > 5, NoTokens("none")), "cannot answer a text: none"),
        (lambda texts: [("A", float("nan")) for _ in texts], "score nan, which is not a finite number"),
        (lambda texts: [("A", float("inf")) for _ in texts], "score inf, which is not a finite number"),
        (lambda texts: sound(texts)[:1] * 2, "gives 2 answers to a text"),
        (lambda texts: [], "gives 0 answers to a text"),
        (lambda texts: [(None, 0.5) for _ in texts], "label None, which is not text"),
    ],
)
def test_what_cannot_answer_is_told_in_a_sentence(answer: Answering, sentence: str) -> None:
    with pytest.raises(ModelReferenceError, match=sentence):
        probe(Model(answer))


def test_a_text_without_tokens_is_the_callers_affair() -> None:
    assert probe(Model(_fail_at(lambda texts: "" in texts, NoTokens("none")))) == []


def test_a_crash_is_not_the_models_verdict() -> None:
    with pytest.raises(ModelCrashed):
        probe(Model(_fail_at(lambda texts: True, ModelCrashed("killed"))))


def test_a_model_that_answers_the_same_to_everything_is_doubtful() -> None:
    [doubt] = probe(Model(lambda texts: [("A", 0.5) for _ in texts]))
    assert "the same answer to every text" in doubt


def test_answers_that_depend_on_the_company_are_doubtful() -> None:
    [doubt, *_] = probe(Model(lambda texts: [("A", 0.1 * len(texts) + 1 / (2 + len(text))) for text in texts]))
    assert "differently than each alone" in doubt


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path / "cache"
    monkeypatch.setenv("RESIDENCY_CACHE", str(cache))
    return cache


def test_what_is_known_is_not_asked_again(own_cache: Path, checkpoints: list[Path]) -> None:
    directory, loader = checkpoints[0], Loader()
    first, again, restarted, changed, other = (Model(sound) for _ in range(5))
    assert not Probes().knows(loader, "", identity(directory))
    probes = Probes()
    probes.check("a", first, loader, "", identity(directory))
    probes.check("a", again, loader, "", identity(directory))
    Probes().check("a", restarted, loader, "", identity(directory))
    assert first.asked
    assert not again.asked
    assert not restarted.asked
    assert Probes().knows(loader, "", identity(directory))
    Probes().check("a", other, loader, "[('dtype', 'bfloat16')]", identity(directory))
    assert other.asked
    config = (directory / "config.json").read_text()
    (directory / "config.json").unlink()
    (directory / "config.json").write_text(config)
    probes.check("a", changed, loader, "", identity(directory))
    assert changed.asked


def test_a_failure_is_not_remembered(own_cache: Path, checkpoints: list[Path]) -> None:
    broken, mended = Model(_fail_at(lambda texts: True, RuntimeError("no memory"))), Model(sound)
    probes = Probes()
    with pytest.raises(ModelReferenceError):
        probes.check("a", broken, Loader(), "", identity(checkpoints[0]))
    probes.check("a", mended, Loader(), "", identity(checkpoints[0]))
    assert mended.asked


def test_a_doubt_is_told_at_each_start(
    own_cache: Path, checkpoints: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "residency"):
            Probes().check(
                "mine", Model(lambda texts: [("A", 0.5) for _ in texts]), Loader(), "", identity(checkpoints[0])
            )
        assert "Model 'mine' gives the same answer to every text" in caplog.text


def test_a_cache_that_cannot_be_written_keeps_nothing_from_being_probed(
    checkpoints: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RESIDENCY_CACHE", str(tmp_path / "file"))
    for _ in range(2):
        model = Model(sound)
        Probes().check("a", model, Loader(), "", identity(checkpoints[0]))
        assert model.asked


def test_a_user_without_a_cache_is_served_as_well(checkpoints: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESIDENCY_CACHE", "~nobody-of-this-name/cache")
    probes, model = Probes(), Model(sound)
    probes.check("a", model, Loader(), "", identity(checkpoints[0]))
    assert model.asked
    assert probes.knows(Loader(), "", identity(checkpoints[0]))
    assert not Probes().knows(Loader(), "", identity(checkpoints[0]))


def test_an_empty_note_in_the_cache_is_none(own_cache: Path, checkpoints: list[Path]) -> None:
    """As a machine that failed leaves it."""
    Probes().check("a", Model(sound), Loader(), "", identity(checkpoints[0]))
    [note] = (own_cache / "known").iterdir()
    note.write_text("")
    again = Model(sound)
    Probes().check("a", again, Loader(), "", identity(checkpoints[0]))
    assert again.asked
