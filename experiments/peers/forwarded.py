"""Compares llama.cpp's server, asked directly, with the same server asked through Residency.

    python -m experiments.peers.forwarded --rounds 7 -m ~/.cache/residency/SmolLM2-135M-Instruct.Q4_1.gguf

Both are asked in turn, in the same round. The figures are medians over rounds: the time from starting the server to
its first token, the tokens per second of a stream, and the time of a completion of one token.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

from core.bench.client import connect
from core.bench.server import ROOT, ServerProcess, launch, serve
from core.bench.streams import Chunk, read_answer
from core.results.records import Arrival

TIMEOUT = 120.0  # seconds, for a start and for each answer
WARM_UP, COMPLETIONS = 3, 20  # requests of one token in a round
TOKENS = 128  # of a stream
SCRIPT = ROOT / "experiments" / "engines" / "llama_server.py"


class Figures(NamedTuple):
    """The figures of one round."""

    first_token_ms: float
    """From the start of the server."""
    tokens_per_s: float
    completion_ms: float


def ask(client: httpx.Client, tokens: int, *, stream: bool) -> tuple[float, Arrival]:
    """Milliseconds until the whole answer, and when its parts arrived."""
    body = {"model": "chat", "prompt": "The sea is", "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    options = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    started, chunks = time.perf_counter(), list[Chunk]()
    with client.stream("POST", "/v1/completions", json=body | options) as response:
        for part in response.iter_bytes():
            chunks.append(((time.perf_counter() - started) * 1e3, part))
        response.raise_for_status()
    return chunks[-1][0], read_answer(chunks, response.headers["Content-Type"], 0.0).arrival


def measure(client: httpx.Client, first_token_ms: float) -> Figures:
    """The figures of a server that has answered; `first_token_ms` is known."""
    _, arrival = ask(client, TOKENS, stream=True)
    times = [ask(client, 1, stream=False)[0] for _ in range(WARM_UP + COMPLETIONS)][WARM_UP:]
    return Figures(first_token_ms, arrival.tokens_per_s or 0.0, statistics.median(times))


def alone(model: Path) -> Figures:
    """The figures of a server that is started here, and asked directly."""
    with launch(command(model), os.environ) as server, connect(server.url, TIMEOUT) as client:
        wait_until_healthy(server, client)
        before = (time.perf_counter() - server.started) * 1e3
        return measure(client, before + ask(client, 1, stream=True)[1].first_byte_ms)


def wait_until_healthy(server: ServerProcess, client: httpx.Client) -> None:
    """Wait for the first 200 of /health. Raises TrialFailed if the server ends."""
    while True:
        server.check()
        try:
            if client.get("/health").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.001)


@contextmanager
def residency(model: Path) -> Iterator[httpx.Client]:
    """A client of Residency, which has loaded nothing yet, and frees the model 1 s after a request."""
    settings = {
        "models": {"chat": {"run": " ".join([*command(model), "--port", "${port}"]), "parallel": 1}},
        "strategies": [{"strategy": "keep-alive", "options": {"ttl": "1s"}}],
    }
    with serve(settings) as server, connect(server.url, TIMEOUT) as client:
        server.wait_until_ready(client, TIMEOUT)
        yield client


def through_residency(client: httpx.Client) -> Figures:
    """The figures of the same server, started by Residency for the first request, and asked through it."""
    while client.get("/strategies").json()["strategies"][0]["resident"]:
        time.sleep(0.05)
    return measure(client, ask(client, 1, stream=True)[1].first_byte_ms)


def command(model: Path) -> list[str]:
    """The command without its port."""
    return [sys.executable, str(SCRIPT), "-m", str(model), "--cache-ram", "0"]


def report(figures: dict[str, list[Figures]]) -> Sequence[str]:
    """A line for each figure: medians over rounds, and their ratio and difference."""
    lines = [f"{'':24}{'alone':>10}{'through':>10}{'ratio':>8}{'difference':>12}"]
    for index, name in enumerate(("first token (ms)", "tokens/s", "one token (ms)")):
        one, other = (statistics.median(each[index] for each in figures[key]) for key in ("alone", "through"))
        lines.append(f"{name:24}{one:10.1f}{other:10.1f}{other / one:8.3f}{other - one:12.2f}")
    return lines


def main() -> None:
    """Measure both in turn, and print the figures."""
    parser = argparse.ArgumentParser(description="What it costs to ask llama.cpp's server through Residency.")
    parser.add_argument("-m", "--model", type=lambda path: Path(path).expanduser(), required=True, help="a .gguf file")
    parser.add_argument("--rounds", type=int, default=7)
    flags = parser.parse_args()
    figures = defaultdict[str, list[Figures]](list)
    with residency(flags.model) as client:
        through_residency(client)  # the first one imports what forwarding needs
        for _ in range(flags.rounds):
            figures["alone"].append(alone(flags.model))
            figures["through"].append(through_residency(client))
    print(*report(figures), sep="\n")


if __name__ == "__main__":
    main()
