"""One request after the other over one connection, each timed and told apart."""

from __future__ import annotations

import json
import re
import time
from typing import Any, NotRequired, TypedDict

import httpx

from ..errors import TrialFailed

MOST_LABELS = 20  # that an answer is asked to tell: more would be timed, and kept for each request
TIMING = re.compile(r"([\w-]+);dur=([\d.]+)")


class Reply(TypedDict):
    """What a server replied, in the fields of a sample: an answer, or an error."""

    status: int
    error: NotRequired[str]
    cold: NotRequired[bool]
    label: NotRequired[str]
    score: NotRequired[float]
    top: NotRequired[list[tuple[str, float]]]
    timing: NotRequired[dict[str, float]]


def connect(url: str, timeout: float) -> httpx.Client:
    """Straight to the server: no proxy of the environment stands between."""
    return httpx.Client(base_url=url, timeout=timeout, trust_env=False)


def body_of(text: str, model: str) -> dict[str, Any]:
    """A request that asks for the scores of all labels, by which answers are compared."""
    return {"text": text, "model": model, "top_k": MOST_LABELS}


def ask(client: httpx.Client, route: str, model: str, text: str) -> tuple[float, Reply]:
    """Send one text; the milliseconds until the whole answer was there, and the reply.

    What is read out of the answer comes after. An error of the transport is raised: httpx.TimeoutException,
    httpx.TransportError; TrialFailed for an answer that is none.
    """
    body = body_of(text, model)
    started = time.perf_counter()
    response = client.post(route, json=body)
    ms = (time.perf_counter() - started) * 1e3
    return ms, read_reply(response.status_code, response.content, response.headers.get("Server-Timing", ""))


def read_reply(status: int, body: bytes, server_timing: str) -> Reply:
    """The reply in a response. Raises TrialFailed for one that is none."""
    if status != httpx.codes.OK:
        return {"status": status, "error": _detail(body)}
    try:
        answer = json.loads(body)
        [prediction] = answer["predictions"]
        label, score = str(prediction["label"]), float(prediction["score"])
        top = [(str(each["label"]), float(each["score"])) for each in prediction.get("top", [])]
        cold = bool(answer["cold"])
    except (ValueError, KeyError, TypeError) as error:
        raise TrialFailed(f"the server's answer has another form: {_text(body)}") from error
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


def strategy_of(client: httpx.Client) -> dict[str, Any]:
    """The state of the one strategy that the server has."""
    [strategy] = client.get("/strategies").raise_for_status().json()["strategies"]
    return dict(strategy)
