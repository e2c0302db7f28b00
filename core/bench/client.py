"""The load generator: one request after the other over one connection, each timed and told apart."""

from __future__ import annotations

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
    sample: dict[str, Any] = {"ms": (time.perf_counter() - started) * 1e3, "status": response.status_code}
    if response.status_code != httpx.codes.OK:
        return sample | {"error": _detail(response)}
    try:
        answer = response.json()
        [prediction] = answer["predictions"]
        answered = {"cold": answer["cold"], "label": prediction["label"], "score": prediction["score"]}
    except (ValueError, KeyError, TypeError) as error:
        raise TrialFailed(f"the server's answer has another form: {response.text[:200]}") from error
    timing = {name: float(ms) for name, ms in TIMING.findall(response.headers.get("Server-Timing", ""))}
    return sample | answered | {"timing": timing}


def _detail(response: httpx.Response) -> str:
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return response.text[:200]
