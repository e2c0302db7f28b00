"""Reading an answer of a server of any kind: its words, its usage, and when its parts arrived."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..results.records import Arrival
from ..tasks.functions import numbers_apart

EVENTS = "text/event-stream"
DONE = "[DONE]"
PASSING = ("id", "created", "usage", "timings", "system_fingerprint", "request_id")  # differ in equal answers
MOST_APART = 1000.0  # a distance that can be written as JSON
Chunk = tuple[float, bytes]  # milliseconds since the request was due, and what was received then


class Failed(NamedTuple):
    """An error that ended an answer; its status is 0 if it has none."""

    status: int
    sentence: str


class Answer(NamedTuple):
    """What an answer says, when its parts arrived, the error that ended it, if one did, and what its comments say."""

    content: Any
    arrival: Arrival
    failed: Failed | None = None
    comments: str = ""


class _Event(NamedTuple):
    ms: float
    data: Any


def is_stream(content_type: str) -> bool:
    """Whether an answer of this type is a stream of events."""
    return content_type.partition(";")[0].strip() == EVENTS


def read_answer(chunks: Sequence[Chunk], content_type: str, waited_ms: float) -> Answer:
    """The answer in these chunks. `waited_ms` is what passed before it was computed, in a queue or for a load.

    Raises ValueError if it is neither JSON nor a stream of JSON.
    """
    if is_stream(content_type):
        comments = b"".join(part for _, part in chunks).split(b"\n")
        said = b"\n".join(line for line in comments if line.startswith(b":")).decode("utf-8", "replace")
        return _read_events(list(_events(chunks)))._replace(comments=said)
    body = json.loads(b"".join(part for _, part in chunks))
    tokens, seconds = _tokens(body), (chunks[-1][0] - waited_ms) / 1e3
    arrival = Arrival(
        first_byte_ms=chunks[0][0], tokens=tokens, tokens_per_s=tokens / seconds if tokens and seconds > 0 else None
    )
    return Answer(_words(body) or _lasting(body), arrival)


def _events(chunks: Sequence[Chunk]) -> Iterator[_Event]:
    """The JSON events of a stream, each at the time when it was complete; comments are skipped."""
    left = b""
    for ms, part in chunks:
        *complete, left = (left + part.replace(b"\r\n", b"\n")).split(b"\n\n")
        for event in complete:
            lines = (line.partition(b":") for line in event.split(b"\n"))
            data = b"\n".join(value.removeprefix(b" ") for name, _, value in lines if name == b"data")
            if data and data != DONE.encode():
                yield _Event(ms, json.loads(data))


def _read_events(events: Sequence[_Event]) -> Answer:
    if not events:
        raise ValueError("a stream without an event")
    pieces = [(event.ms, words) for event in events if (words := _words(event.data))]
    times = [ms for ms, _ in pieces]
    gaps, tokens = np.diff(times), max((_tokens(event.data) or 0 for event in events), default=0) or None
    seconds = (times[-1] - times[0]) / 1e3 if times else 0.0
    arrival = Arrival(
        first_byte_ms=events[0].ms,
        gap_ms=float(np.median(gaps)) if len(gaps) else None,
        longest_gap_ms=float(np.max(gaps)) if len(gaps) else None,
        tokens=tokens,
        tokens_per_s=(tokens - 1) / seconds if tokens and seconds > 0 else None,
    )
    failed = next((found for event in events if (found := _failed(event.data))), None)
    content = "".join(words for _, words in pieces) or [_lasting(event.data) for event in events]
    return Answer(content, arrival, failed)


def _words(data: Any) -> str:
    """The words in an answer, or in an event of one, as OpenAI, Anthropic and llama.cpp write them; "" without any."""
    if not isinstance(data, dict):
        return ""
    found = []
    choices = data.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        part = choice.get("delta") or choice.get("message") or {}
        found += [part.get("reasoning_content"), part.get("content"), choice.get("text")]
    delta = data.get("delta")
    found += [delta.get("text") if isinstance(delta, dict) else delta, data.get("content")]
    return "".join(words for words in found if isinstance(words, str))


def _tokens(data: Any) -> int | None:
    """The tokens of an answer, by its usage."""
    usage = data.get("usage") if isinstance(data, dict) else None
    counts = (usage.get(key) for key in ("completion_tokens", "output_tokens")) if isinstance(usage, dict) else ()
    return next((count for count in counts if isinstance(count, int)), None)


def _failed(data: Any) -> Failed | None:
    """The error that an event tells."""
    error = data.get("error") if isinstance(data, dict) else None
    if not isinstance(error, dict):
        return Failed(0, str(error)) if error else None
    status = error.get("code")
    known = status if isinstance(status, int) and 400 <= status < 600 else 0
    return Failed(known, str(error.get("message") or error.get("detail") or error))


def _lasting(data: Any) -> Any:
    """An answer without what differs each time."""
    return {key: value for key, value in data.items() if key not in PASSING} if isinstance(data, dict) else data


def answers_apart(one: Any, other: Any) -> float:
    """How far two answers of JSON are from each other: above 1 they differ. Numbers may differ by 2 %."""
    if isinstance(one, Mapping) and isinstance(other, Mapping) and one.keys() == other.keys():
        return max((answers_apart(one[key], other[key]) for key in one), default=0.0)
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return max(map(answers_apart, one, other), default=0.0)
    numbers = [value for value in (one, other) if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == 2:
        return min(MOST_APART, numbers_apart(one, other))
    return 0.0 if one == other else MOST_APART
