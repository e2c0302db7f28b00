"""How a trial asks its models: what is sent for a text or a request of the experiment, and what an answer says."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpx
from pydantic import TypeAdapter

from ..errors import TrialFailed
from ..results.records import OK
from ..tasks.classify import CLASSIFY
from ..tasks.task import Task
from .client import Reply, cut, read_failure, read_reply, read_timing, request_body, with_node, with_timing
from .first_answers import FirstAnswers
from .requests import Message
from .streams import Chunk, answers_apart, is_stream, read_answer

COLD_HEADER = "X-Residency-Cold"
CUT_OFF = 0  # the status of an answer that did not come to its end
WAITS = ("queue", "load")  # parts of Server-Timing that precede the computation


@dataclass(frozen=True)
class Asking:
    """Makes the requests of a trial, and reads the answers. Its questions are the experiment's texts or requests."""

    route: str
    """The path of predictions."""
    texts: Sequence[str]
    messages: Sequence[Message]
    """Requests, in place of texts."""
    tasks: Mapping[str, Task]
    """The task that each model is asked for; without an entry it classifies."""
    first: FirstAnswers

    def ask(
        self, client: httpx.Client, model: str, text: int, headers: Mapping[str, str] | None = None
    ) -> tuple[float, Reply]:
        """Send one request. Returns the milliseconds until the whole response was received, and the reply.

        Reading the reply is not timed. Raises httpx.TimeoutException, httpx.TransportError, and TrialFailed for a
        malformed response.
        """
        path, body = self.request(model, text)
        given = {"Content-Type": "application/json", **(headers or {})}
        chunks: list[Chunk] = []
        started = time.perf_counter()
        with client.stream("POST", path, content=body, headers=given) as response:
            try:
                parts = response.iter_bytes() if self.messages else [response.read()]
                chunks.extend(((time.perf_counter() - started) * 1e3, part) for part in parts)
            except (httpx.ReadError, httpx.RemoteProtocolError) as error:
                if not self.messages:
                    raise
                ms = (time.perf_counter() - started) * 1e3  # an engine may have ended; our server is asked again
                return ms, {"status": CUT_OFF, "error": f"the connection broke ({error})"}
        ms = (time.perf_counter() - started) * 1e3
        return ms, self.reply(model, text, response.status_code, chunks, response.headers)

    def request(self, model: str, text: int) -> tuple[str, bytes]:
        """The path and the body."""
        if self.messages:
            return self.messages[text].path, self.messages[text].body_for(model)
        task = self.tasks.get(model, CLASSIFY)
        if task is CLASSIFY:
            return self.route, json.dumps(request_body(self.texts[text], model)).encode()
        return f"/tasks/{task.name}", json.dumps({"items": [task.from_text(self.texts[text])], "model": model}).encode()

    def reply(self, model: str, text: int, status: int, chunks: Sequence[Chunk], headers: Mapping[str, str]) -> Reply:
        """What an answer says, in the fields of a sample. `chunks` are the parts of its body.

        Raises TrialFailed if the answer is malformed.
        """
        body = b"".join(part for _, part in chunks)
        if status != OK:
            return with_node(read_failure(status, body), headers)
        if self.messages:
            return with_node(self._message_reply(model, text, chunks, headers), headers)
        task = self.tasks.get(model, CLASSIFY)
        if task is CLASSIFY:
            return read_reply(status, body, headers)
        return with_node(self._task_reply(task, model, text, body, headers), headers)

    def _task_reply(self, task: Task, model: str, text: int, body: bytes, headers: Mapping[str, str]) -> Reply:
        try:
            answer = json.loads(body)
            [result] = answer["results"]
            cold = bool(answer["cold"])
            apart = self.first.compare(model, text, result, _apart_as(task))
        except (ValueError, KeyError, TypeError) as error:
            raise TrialFailed(f"the server's response is malformed: {cut(body)}") from error
        return with_timing({"status": OK, "cold": cold, "apart": apart}, headers)

    def _message_reply(self, model: str, text: int, chunks: Sequence[Chunk], headers: Mapping[str, str]) -> Reply:
        reply = with_timing({"status": OK}, headers)
        timing, kind = reply["timing"], headers.get("Content-Type", "")
        try:
            answer = read_answer(chunks, kind, sum(timing.get(part, 0.0) for part in WAITS))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise TrialFailed(f"the server's response is malformed: {cut(b''.join(c for _, c in chunks))}") from error
        if answer.failed is not None:
            return {"status": answer.failed.status, "error": answer.failed.sentence}
        timing.update(read_timing(answer.comments))  # of a stream whose head came before its model was loaded
        if is_stream(kind) or "inference" not in timing:  # a server knows only when the stream began
            timing["inference"] = max(0.0, chunks[-1][0] - sum(timing.get(part, 0.0) for part in WAITS))
        reply["cold"] = headers[COLD_HEADER] == "true" if COLD_HEADER in headers else "load" in timing
        reply["arrival"] = answer.arrival
        if self.messages[text].agree:
            reply["apart"] = self.first.compare(model, text, answer.content, answers_apart)
        return reply


@cache  # for every sample
def _apart_as(task: Task) -> Callable[[Any, Any], float]:
    """The task's distance between two results in JSON."""
    read = TypeAdapter(task.result).validate_python
    return lambda one, other: task.apart(read(one), read(other))
