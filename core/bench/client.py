"""Sending timed prediction requests over one connection, and reading replies."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

import httpx

from ..errors import TrialFailed
from ..results.records import Arrival

MOST_LABELS = 20  # in an answer; more labels would add to the timing and to each sample
NODE_HEADER = "X-Residency-Node"  # in answers of a cluster
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
    node: NotRequired[str]
    arrival: NotRequired[Arrival]
    apart: NotRequired[float]


class UsedEntry(TypedDict):
    """How a model was loaded most recently."""

    model: str
    loader: str
    dtype: str
    nbytes: int


class ResidentEntry(TypedDict):
    """A model in memory."""

    model: str
    bytes: int


class Status(TypedDict):
    """The state of a strategy on one server or node: the parts of its JSON that a trial uses."""

    node: NotRequired[str]
    route: str
    loads: int
    unloads: int
    unload_s: float
    used: list[UsedEntry]
    resident: list[ResidentEntry]
    least_keep: float | None


def connect(url: str, timeout: float) -> httpx.Client:
    """A client with one connection to the server. It ignores proxies of the environment. `timeout` is in seconds."""
    return httpx.Client(base_url=url, timeout=timeout, trust_env=False)


def request_body(text: str, model: str) -> dict[str, Any]:
    """The body of a request for the scores of all labels, which comparisons of answers use."""
    return {"text": text, "model": model, "top_k": MOST_LABELS}


def read_reply(status: int, body: bytes, headers: Mapping[str, str]) -> Reply:
    """The reply in a response with labels. Raises TrialFailed if the response is malformed."""
    if status != httpx.codes.OK:
        return with_node(read_failure(status, body), headers)
    try:
        answer = json.loads(body)
        [prediction] = answer["predictions"]
        label, score = str(prediction["label"]), float(prediction["score"])
        top = [(str(each["label"]), float(each["score"])) for each in prediction.get("top", [])]
        cold = bool(answer["cold"])
    except (ValueError, KeyError, TypeError) as error:
        raise TrialFailed(f"the server's response is malformed: {cut(body)}") from error
    found: Reply = {"status": status, "cold": cold, "label": label, "score": score, "top": top or [(label, score)]}
    return with_node(with_timing(found, headers), headers)


def read_failure(status: int, body: bytes) -> Reply:
    """The reply in a response whose status is an error."""
    return {"status": status, "error": _detail(body)}


def with_node(reply: Reply, headers: Mapping[str, str]) -> Reply:
    """The reply, with the node that answered, if it was one of a cluster."""
    if node := headers.get(NODE_HEADER):
        reply["node"] = node
    return reply


def with_timing(reply: Reply, headers: Mapping[str, str]) -> Reply:
    """The reply, with the milliseconds of each part as the server reports them."""
    reply["timing"] = read_timing(headers.get("Server-Timing", ""))
    return reply


def read_timing(text: str) -> dict[str, float]:
    """Milliseconds by part."""
    return {name: float(ms) for name, ms in TIMING.findall(text)}


def _detail(body: bytes) -> str:
    """The sentence of an error: ours, or that of an engine, as OpenAI's clients expect it."""
    try:
        answer = json.loads(body)
        return str(answer["detail"] if "detail" in answer else answer["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return cut(body)


def cut(body: bytes) -> str:
    """The beginning of a body, as text."""
    return body.decode("utf-8", "replace")[:200]


def read_statuses(client: httpx.Client) -> list[Status]:
    """The state of the server's only strategy, on each node if there are several."""
    statuses: list[Status] = client.get("/strategies").raise_for_status().json()["strategies"]
    return statuses


def read_strategy(client: httpx.Client) -> Status:
    """The state of the server's only strategy, added up over nodes."""
    return add_up(read_statuses(client))


def add_up(statuses: list[Status]) -> Status:
    """The state of all nodes together. A model that is in memory on two nodes is twice in `resident`."""
    keeps = [keep for status in statuses if (keep := status["least_keep"]) is not None]
    return {
        "route": statuses[0]["route"],
        "loads": sum(status["loads"] for status in statuses),
        "unloads": sum(status["unloads"] for status in statuses),
        "unload_s": sum(status["unload_s"] for status in statuses),
        "used": list({used["model"]: used for status in statuses for used in status["used"]}.values()),
        "resident": [model for status in statuses for model in status["resident"]],
        "least_keep": min(keeps, default=None),
    }
