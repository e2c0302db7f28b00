"""What is read from answers of servers of any kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.bench.first_answers import FIRST_ANSWERS, FirstAnswers
from core.bench.streams import MOST_APART, answers_apart, read_answer
from core.results.figures import ArrivalFigures
from core.results.records import Arrival, Memory, Sample, TrialEnd
from core.stats.arrival import arrival
from core.stats.rounds import Round

STREAM = "text/event-stream; charset=utf-8"


def event(**data: Any) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()


def delta(words: str | None) -> bytes:
    return event(choices=[{"index": 0, "delta": {"role": "assistant", "content": words}}])


def test_a_stream_is_timed_by_its_words_and_not_by_its_comments() -> None:
    chunks = [
        (100.0, b": loading\n\n"),
        (700.0, b": Server-Timing: queue;dur=1.5, load;dur=690.0\n\n"),
        (800.0, delta(None)),
        (810.0, delta("Red")[:9]),
        (830.0, delta("Red")[9:] + delta(",")[:5]),
        (850.0, delta(",")[5:]),
        (900.0, delta(" blue")),
        (901.0, event(choices=[], usage={"completion_tokens": 3})),
        (902.0, b"data: [DONE]\n\n"),
    ]
    answer = read_answer(chunks, STREAM, 0.0)
    assert (answer.content, answer.failed) == ("Red, blue", None)
    assert "load;dur=690.0" in answer.comments
    assert answer.arrival == Arrival(
        first_byte_ms=800.0, gap_ms=35.0, longest_gap_ms=50.0, tokens=3, tokens_per_s=2 / 0.07
    )


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([{"choices": [{"text": "a"}]}, {"choices": [{"text": "b"}]}], "ab"),
        ([{"type": "response.output_text.delta", "delta": "a"}, {"type": "response.completed"}], "a"),
        ([{"type": "content_block_delta", "delta": {"type": "text_delta", "text": "a"}}], "a"),
        ([{"content": "a", "stop": False}, {"content": "b", "stop": True}], "ab"),
    ],
)
def test_words_are_found_in_all_common_forms(events: list[dict[str, Any]], words: str) -> None:
    assert read_answer([(1.0, b"".join(event(**each) for each in events))], STREAM, 0.0).content == words


def test_an_error_in_a_stream_is_told_with_its_status() -> None:
    failed = event(error={"message": "It did not start.", "code": 503})
    assert read_answer([(1.0, delta("a") + failed)], STREAM, 0.0).failed == (503, "It did not start.")
    assert read_answer([(1.0, event(error="broken"))], STREAM, 0.0).failed == (0, "broken")


def test_other_answers_are_compared_without_what_passes() -> None:
    body = {"id": "x", "created": 1, "data": [{"embedding": [1.0, 2.0]}], "usage": {"total_tokens": 3}}
    answer = read_answer([(10.0, json.dumps(body).encode())], "application/json", 4.0)
    assert answer.content == {"data": [{"embedding": [1.0, 2.0]}]}
    assert answer.arrival == Arrival(first_byte_ms=10.0)
    body = {"choices": [{"message": {"content": "Hi"}}], "usage": {"completion_tokens": 6}}
    answer = read_answer([(5.0, b" "), (10.0, json.dumps(body).encode())], "application/json", 4.0)
    assert (answer.content, answer.arrival.tokens_per_s) == ("Hi", 6 / 0.006)


@pytest.mark.parametrize("content", [b"", b"{", b"data: {\n\n"])
def test_what_is_no_answer_is_refused(content: bytes) -> None:
    for kind in (STREAM, "application/json"):
        with pytest.raises(ValueError, match=r".*"):
            read_answer([(1.0, content)], kind, 0.0)


@pytest.mark.parametrize(
    ("one", "other", "differ"),
    [
        ("a", "a", False),
        ("a", "b", True),
        ({"x": [1.0, 100.0]}, {"x": [1.01, 101.0]}, False),
        ({"x": [1.0]}, {"x": [1.03]}, True),
        ({"x": 1}, {"y": 1}, True),
        ([1, 2], [1], True),
        (True, 1.0, False),
        (None, 1.0, True),
    ],
)
def test_answers_differ_by_words_and_by_more_than_rounding(one: Any, other: Any, differ: bool) -> None:
    assert (answers_apart(one, other) > 1) is differ


def test_the_first_answer_stays_the_first_after_a_kill(tmp_path: Path) -> None:
    first = FirstAnswers(tmp_path)
    assert first.compare("m", 0, "a", answers_apart) == 0
    assert first.compare("m", 0, "b", answers_apart) == MOST_APART
    with (tmp_path / FIRST_ANSWERS).open("a") as file:
        file.write('{"model": "m", "te')
    again = FirstAnswers(tmp_path)
    assert again.compare("m", 1, "c", answers_apart) == 0
    assert (again.compare("m", 0, "a", answers_apart), again.compare("m", 0, "b", answers_apart)) == (0, MOST_APART)
    assert [json.loads(line)["answer"] for line in (tmp_path / FIRST_ANSWERS).read_text().splitlines()] == ["a", "c"]


def test_figures_are_medians_of_warm_and_cold_requests() -> None:
    def sample(first: float, *, cold: bool, tokens_per_s: float) -> Sample:
        parts = Arrival(first_byte_ms=first, gap_ms=2.0, longest_gap_ms=first, tokens=3, tokens_per_s=tokens_per_s)
        return Sample(round=0, trial="a", model="m", text=0, first=False, ms=9.0, status=200, cold=cold, arrival=parts)

    end = TrialEnd(
        round=0, trial="a", ready_s=1.0, first_answer_s=1.0, steady_s=1.0, processor_s=1.0, memory_mib=Memory(),
        loads=1, unloads=0, least_keep=None,
    )  # fmt: skip
    rounds = [
        Round(0, end, [sample(10.0, cold=False, tokens_per_s=5.0), sample(90.0, cold=True, tokens_per_s=7.0)]),
        Round(1, end, [sample(20.0, cold=False, tokens_per_s=6.0)]),
    ]
    assert arrival(rounds) == ArrivalFigures(
        warm_first_byte_ms=15.0, cold_first_byte_ms=90.0, gap_ms=2.0, longest_gap_ms=90.0, tokens_per_s=6.0
    )
    assert arrival([Round(0, end, [])]) is None
