"""One request after the other over one connection, each timed and told apart."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import httpx

from ..errors import TrialFailed

MOST_LABELS = 20  # that an answer is asked to tell: more would be timed, and kept for each request
TIMING = re.compile(r"([\w-]+);dur=([\d.]+)")


def connect(url: str, timeout: float) -> httpx.Client:
    """Straight to the server: no proxy of the environment stands between."""
    return httpx.Client(base_url=url, timeout=timeout, trust_env=False)


def body_of(text: str, model: str) -> dict[str, Any]:
    """A request that asks for the scores of all labels, by which answers are compared."""
    return {"text": text, "model": model, "top_k": MOST_LABELS}


def ask(client: httpx.Client, route: str, model: str, text: str) -> dict[str, Any]:
    """Send one text; the answer as the fields of a sample.

    `ms` is the time until the whole answer was here; what is read out of it comes after. An error of
    the transport is raised: httpx.TimeoutException, httpx.TransportError; TrialFailed for an answer that
    is none.
    """
    body = body_of(text, model)
    started = time.perf_counter()
    response = client.post(route, json=body)
    ms = (time.perf_counter() - started) * 1e3
    return {"ms": ms} | read_answer(response.status_code, response.content, response.headers.get("Server-Timing", ""))


def read_answer(status: int, body: bytes, server_timing: str) -> dict[str, Any]:
    """An answer as the fields of a sample. Raises TrialFailed for one that is none."""
    sample: dict[str, Any] = {"status": status}
    if status != httpx.codes.OK:
        return sample | {"error": _detail(body)}
    try:
        answer = json.loads(body)
        [prediction] = answer["predictions"]
        label, score = prediction["label"], prediction["score"]
        top = [[each["label"], each["score"]] for each in prediction.get("top", [])]
        answered = {"cold": answer["cold"], "label": label, "score": score, "top": top or [[label, score]]}
    except (ValueError, KeyError, TypeError) as error:
        raise TrialFailed(f"the server's answer has another form: {_text(body)}") from error
    timing = {name: float(ms) for name, ms in TIMING.findall(server_timing)}
    return sample | answered | {"timing": timing}


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
