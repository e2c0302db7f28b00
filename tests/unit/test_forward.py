"""What a request to an engine that has just ended comes to, and what an answer is that comes too late for a head."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
from fastapi import Request

from core.errors import ForwardFailed, ModelCrashed
from core.http.forward import _as_event, _Forwarded, _headers_to_pass_on, _target
from core.http.named import SAID, Said, _said, model_named
from core.http.upstream import EngineRequest, NoAnswerError, NotSentError

pytestmark = pytest.mark.anyio
OK = "an answer"


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


class Engine:
    """An engine whose connections do what they are told, and whose process has ended or not."""

    url = "http://127.0.0.1:1"
    has_ended = False

    def __init__(self, outcomes: Sequence[str | Exception], *, crashes: bool) -> None:
        self.outcomes = list(outcomes)
        self.engine = self
        self.renewed = 0
        self._crashes = crashes

    async def ask(self, url: str, asked: EngineRequest, is_running: Callable[[], bool]) -> str:
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def has_crashed(self) -> bool:
        return self._crashes

    async def renew(self) -> None:
        self.renewed += 1


async def ask(engine: Engine) -> Any:
    asked = EngineRequest("POST", "/x", [], b"")
    forwarded = _Forwarded(cast("Any", None), "test", "chat", asked, None, is_commented=False)
    return await forwarded._ask(cast("Any", engine), cast("Any", engine))


async def test_nothing_was_sent_to_an_engine_that_has_ended() -> None:
    engine = Engine([NotSentError(), OK], crashes=True)
    assert await ask(engine) == OK
    assert engine.renewed == 1


@pytest.mark.parametrize(
    ("outcomes", "crashes", "error"),
    [
        ([NotSentError(), NotSentError()], True, ModelCrashed),
        ([NoAnswerError()], True, ModelCrashed),
        ([NotSentError()], False, ForwardFailed),
        ([NoAnswerError()], False, ForwardFailed),
    ],
)
async def test_what_is_not_asked_again(outcomes: list[str | Exception], crashes: bool, error: type[Exception]) -> None:
    engine = Engine(outcomes, crashes=crashes)
    with pytest.raises(error, match="'chat'"):
        await ask(engine)
    assert engine.outcomes == []


@pytest.mark.parametrize(
    ("status", "content", "said"),
    [
        (400, b'{"error": {"message": "no"}}', {"error": {"message": "no"}}),
        (500, b"oops", {"type": "error", "error": {"message": "oops", "type": "engine_error", "code": 500}}),
        (404, b"[1]", {"type": "error", "error": {"message": "[1]", "type": "engine_error", "code": 404}}),
        (200, b'{\n"choices": []}', {"choices": []}),
    ],
)
def test_an_answer_as_an_event(status: int, content: bytes, said: Any) -> None:
    event = _as_event(status, content).decode()
    assert event.startswith("data: ")
    assert event.endswith("\n\n")
    assert json.loads(event[6:]) == said


@pytest.mark.parametrize(
    ("raw", "path", "target"),
    [
        (b"/strategy/v1/models", "/v1/models", "/v1/models?q"),
        (b"/upstream/m/a%2Fb%20c", "/a/b c", "/a%2Fb%20c?q"),
        (b"/upstream/m/%2541", "/%41", "/%2541?q"),
        (b"/models/m", "/", "/?q"),
    ],
)
def test_the_target_as_it_was_sent(raw: bytes, path: str, target: str) -> None:
    assert _target({"raw_path": raw, "path": "", "query_string": b"q"}, path) == target


def test_headers_of_the_connection_stay_on_it() -> None:
    headers = [
        (b"Connection", b"close, X-Hop"),
        (b"X-Hop", b"1"),
        (b"Date", b"now"),
        (b"Set-Cookie", b"a"),
        (b"Set-Cookie", b"b"),
    ]
    assert list(_headers_to_pass_on(headers)) == [(b"set-cookie", b"a"), (b"set-cookie", b"b")]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"model": "chat", "stream": true, "messages": "\\ud83d"}', Said(("chat",), stream=True)),
        (b'{"model": "chat", "x": ' + b"[" * 500 + b"]" * 500 + b"}", Said(("chat",))),
        (b'{"model": "chat", "x": ' + b"[" * 100_000, Said()),
        (b'{"model": "chat", "x": "\xff"}', Said()),
        (b'{"model": "chat"', Said()),
    ],
)
def test_a_body_that_only_the_engine_may_be_able_to_read(body: bytes, said: Said) -> None:
    """Some parsers accept half of a surrogate pair, or deeper lists than ours does."""
    assert _said(body, "") == said


async def test_a_header_names_an_alias_of_any_letters() -> None:
    scope = {"type": "http", "headers": [(b"x-model", "größer".encode())], "query_string": b"", SAID: Said()}
    assert await model_named(Request(scope)) == "größer"


@pytest.mark.parametrize(
    ("parameters", "is_named"),
    [
        ('name="model"', True),
        ("name=model", True),
        ('filename="a \\" b"; name="model"', True),
        ("filename*=utf-8''a%20b; name=model; x=y", True),
        ('name="models"', False),
        ('name="file"; filename="a; name=model; b"', False),
        ('name="file"; filename="a \\"; name=model; b"', False),
        ('name="file"; filename="model"', False),
        ('filename="' + "\\a" * 20_000, False),
        ("; a=b" * 20_000, False),
    ],
)
def test_a_field_that_names_the_model(parameters: str, is_named: bool) -> None:
    part = f"--B\r\nContent-Disposition: form-data; {parameters}\r\n\r\nchat\r\n--B--\r\n"
    assert _said(part.encode(), "multipart/form-data; boundary=B") == Said(("chat",) if is_named else ())
