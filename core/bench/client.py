"""Sending timed prediction requests over one connection, and reading replies."""

from __future__ import annotations

import json
import re
import time
from typing import Any, NotRequired, TypedDict

import httpx

from ..errors import TrialFailed

MOST_LABELS = 20  # in an answer; more labels would add to the timing and to each sample
TIMING = re.compile(r"([\w-]+);dur=([\d.]+)")


class Reply(TypedDict):
    """A server's reply, an answer or an error, in the fields of a sample."""

    status: int
    error: NotRequired[str]
    cold: NotRequired[bool]
    label: NotRequired[str]
    score: NotRequired[float]
    top: NotRequired[list[tuple[str, float]]]
    timing: NotRequired[dict[str, float]]


def connect(url: str, timeout: float) -> httpx.Client:
    """A client with one connection to the server. It ignores proxies of the environment. `timeout` is in seconds."""
    return httpx.Client(base_url=url, timeout=timeout, trust_env=False)


def request_body(text: str, model: str) -> dict[str, Any]:
    """The body of a request for the scores of all labels, which comparisons of answers use."""
    return {"text": text, "model": model, "top_k": MOST_LABELS}


def ask(client: httpx.Client, route: str, model: str, text: str) -> tuple[float, Reply]:
    """Send one text. Returns the milliseconds until the whole response was received, and the reply.

    Parsing the response is not timed. Raises httpx.TimeoutException, httpx.TransportError, and TrialFailed for a
    malformed response.
    """
    body = request_body(text, model)
    started = time.perf_counter()
    response = client.post(route, json=body)
    ms = (time.perf_counter() - started) * 1e3
    return ms, read_reply(response.status_code, response.content, response.headers.get("Server-Timing", ""))


def read_reply(status: int, body: bytes, server_timing: str) -> Reply:
    """The reply in a response. Raises TrialFailed if the response is malformed."""
    if status != httpx.codes.OK:
        return {"status": status, "error": _detail(body)}
    try:
        answer = json.loads(body)
        [prediction] = answer["predictions"]
        label, score = str(prediction["label"]), float(prediction["score"])
        top = [(str(each["label"]), float(each["score"])) for each in prediction.get("top", [])]
        cold = bool(answer["cold"])
    except (ValueError, KeyError, TypeError) as error:
        raise TrialFailed(f"the server's response is malformed: {_text(body)}") from error
    timing = {name: float(ms) for name, ms in TIMING.findall(server_timing)}
    return {
        "status": status, "cold": cold, "label": label, "score": score, "top": top or [(label, score)], "timing": timing
    }  # fmt: skip


def _detail(body: bytes) -> str:
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError):
        return _text(body)


def _text(body: bytes) -> str:
    return body.decode("utf-8", "replace")[:200]


def read_strategy(client: httpx.Client) -> dict[str, Any]:
    """The state of the server's only strategy, as JSON."""
    [strategy] = client.get("/strategies").raise_for_status().json()["strategies"]
    return dict(strategy)
