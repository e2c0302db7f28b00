"""One request after the other over one connection, each timed and told apart."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import httpx

from ..errors import TrialFailed

TIMING = re.compile(r"([\w-]+);dur=([\d.]+)")


def connect(url: str, timeout: float) -> httpx.Client:
    """Straight to the server: no proxy of the environment stands between."""
    return httpx.Client(base_url=url, timeout=timeout, trust_env=False)


def ask(client: httpx.Client, route: str, model: str, text: str) -> dict[str, Any]:
    """Send one text; the answer as the fields of a sample.

    `ms` is the time until the whole answer was here; what is read out of it comes after. An error of
    the transport is raised: httpx.TimeoutException, httpx.TransportError; TrialFailed for an answer that
    is none.
    """
    started = time.perf_counter()
    response = client.post(route, json={"text": text, "model": model})
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
        answered = {"cold": answer["cold"], "label": prediction["label"], "score": prediction["score"]}
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
