"""Is the server stable under hours of load, and usable at ten times its capacity?

python -m experiments.soak

Sends half an hour of traffic at 70 % of the measured capacity, over all strategies, with texts of mixed length; then
five rounds at 1, 2 and 10 times the capacity of `persistent`; then normal traffic. Exits with 1 if a limit is exceeded.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

import httpx
import numpy as np
import uvloop
from scipy.stats import linregress

from core.bench.client import connect
from core.bench.server import ServerProcess, serve
from core.system import memory

STRATEGIES = ("persistent", "on-demand", "lru-cached", "keep-alive")
SENTENCE = "the room was spotless but nobody answered and the soup was cold again I would come back"  # 20 tokens
SHARE = 0.7  # of the capacity
CLIENTS = 16
OVERLOADED = 1024  # connections
OVERLOADS = (2, 10)  # of the capacity
ROUNDS = 5  # of overloads; their medians count
READY = 120.0  # seconds for start-up and for each answer
MEMORY_SECONDS = 10.0
MAX_SLOPE = 1.0  # MB of private memory in an hour
MAX_DRIFT = 1.2  # p99 of the last third relative to the first
MIN_GOODPUT = 0.9  # of the capacity, at any overload
REFUSED_MS = 100.0  # the most that a 503 may take
RECOVERY_SECONDS = 10.0  # for the server to recover after an overload
LUA = """
wrk.method = "POST"
wrk.body = '{"text": "SENTENCE"}'
wrk.headers["Content-Type"] = "application/json"
local threads = {}
function setup(thread) table.insert(threads, thread) end
function init(args) pause = tonumber(args[1]); good = 0; refused = 0; other = 0 end
-- Without a delay all connections would send at once. The server closes connections that are idle for 5 s.
function delay() return math.min(4000, -pause * math.log(1 - math.random())) end
function response(status)
  if status == 200 then good = good + 1 elseif status == 503 then refused = refused + 1 else other = other + 1 end
end
function done(summary, latency, requests)
  local e = summary.errors
  local broken = e.connect + e.read + e.write + e.timeout
  for _, t in ipairs(threads) do
    print("COUNTS", t:get("good"), t:get("refused"), t:get("other") + broken, summary.duration)
  end
end
"""


class Sample(NamedTuple):
    """A request: its intended time (seconds from the start), its latency (ms), and its status."""

    at: float
    ms: float
    status: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="duration of the soak")
    parser.add_argument("--overload-seconds", type=int, default=10, help="duration of each overload")
    parser.add_argument("--model", default="synthetic:minilm-l6", help="reference of the model")
    options = parser.parse_args()
    settings = {
        "models": {"model": options.model},
        "strategies": list(STRATEGIES),
    }
    with serve(settings) as server, connect(server.url, READY) as client:
        server.wait_until_ready(client, READY)
        faults = [*soak(server, options.minutes * 60), *overload(server, client, options.overload_seconds)]
    for fault in faults:
        print(f"Failed: {fault}")
    sys.exit(1 if faults else 0)


def soak(server: ServerProcess, seconds: float) -> Iterator[str]:
    """Load the server for `seconds`, and yield what is wrong afterwards."""
    capacity = uvloop.run(closed_loop(server.url, min(15.0, seconds / 4)))
    print(f"capacity over all strategies: {capacity:.0f} requests/s; {seconds / 60:g} minutes at {SHARE:.0%} of it")
    samples, private = uvloop.run(open_loop(server, SHARE * capacity, seconds))
    print(f"answers: {dict(Counter(sample.status for sample in samples))}")
    if failed := [sample for sample in samples if sample.status != httpx.codes.OK]:
        yield f"{len(failed)} of {len(samples)} requests failed, the first with {failed[0].status}"
    third = seconds / 3
    first, last = (
        np.percentile([s.ms for s in samples if a <= s.at < b], 99) for a, b in ((0, third), (2 * third, seconds))
    )
    print(f"p99 of the first third {first:.0f} ms, of the last {last:.0f} ms: {last / first:.2f} ×")
    if last > MAX_DRIFT * first:
        yield f"p99 rose to more than {MAX_DRIFT} × its first value"
    warm = [(at, mib) for at, mib in private if at > third]  # the first third is warm-up
    fit = linregress([at / 3600 for at, _ in warm], [mib * 1.048576 for _, mib in warm])
    print(f"private memory: {warm[0][1]:.1f} to {warm[-1][1]:.1f} MiB, {fit.slope:+.2f} ± {fit.stderr:.2f} MB/h")
    if fit.slope > max(MAX_SLOPE, 2 * fit.stderr):  # beyond the noise
        yield f"private memory grows by more than {MAX_SLOPE} MB/h"


async def closed_loop(url: str, seconds: float) -> float:
    """The requests per second of `CLIENTS` clients that each wait for an answer before the next request."""
    rng, end, answered = random.Random(1), time.perf_counter() + seconds, 0

    async def client() -> None:
        nonlocal answered
        while time.perf_counter() < end:
            assert (await ask(http, rng)) == httpx.codes.OK
            answered += 1

    async with httpx.AsyncClient(base_url=url, timeout=READY, trust_env=False) as http:
        await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return answered / seconds


async def open_loop(
    server: ServerProcess, rate: float, seconds: float
) -> tuple[list[Sample], list[tuple[float, float]]]:
    """Send requests with Poisson arrivals. Returns the samples, and (seconds, private memory in MiB) readings."""
    rng = random.Random(2)
    samples: list[Sample] = []
    private: list[tuple[float, float]] = []
    pending: set[asyncio.Task[None]] = set()
    start = time.perf_counter()

    async def send(at: float) -> None:
        status = await ask(http, rng)
        samples.append(Sample(at, (time.perf_counter() - start - at) * 1e3, status))

    async def watch() -> None:
        while True:
            _, mib = await asyncio.to_thread(memory.pss_and_private, server.pid)
            private.append((time.perf_counter() - start, mib or 0.0))
            await asyncio.sleep(MEMORY_SECONDS)

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
    async with httpx.AsyncClient(base_url=server.url, timeout=READY, trust_env=False, limits=limits) as http:
        watching = asyncio.create_task(watch())
        at = rng.expovariate(rate)
        while at < seconds:
            await asyncio.sleep(max(0.0, at - (time.perf_counter() - start)))
            task = asyncio.create_task(send(at))
            pending.add(task)
            task.add_done_callback(pending.discard)
            at += rng.expovariate(rate)
        await asyncio.gather(*pending)
        watching.cancel()
    return samples, private


async def ask(http: httpx.AsyncClient, rng: random.Random) -> int:
    """Send 1 to 60 words to a random strategy, and return the status; 0 if there was no answer."""
    name = rng.choice(STRATEGIES)
    text = " ".join(rng.choices(SENTENCE.split(), k=rng.choice((1, 8, 16, 16, 60))))
    route = "/predict" if name == "persistent" else f"/predict-{name}"
    try:
        return (await http.post(route, json={"text": text})).status_code
    except httpx.TransportError:
        return 0


def overload(server: ServerProcess, client: httpx.Client, seconds: int) -> Iterator[str]:
    """Overload the server in several rounds, and yield what is wrong."""
    rounds = [under_load(server, client, seconds) for _ in range(ROUNDS)]
    for times in OVERLOADS:
        runs = [each[times] for each in rounds]
        share, slowest = median(run.share for run in runs), median(run.slowest for run in runs)
        print(f"{times} × offered: {share:.2f} of the capacity answered, a 503 within {slowest:.0f} ms (medians)")
        if share < MIN_GOODPUT:
            yield f"at {times} × the capacity only {share:.2f} of it is answered"
        if times == max(OVERLOADS) and not all(run.refusals for run in runs):
            yield "no probe was refused, so the time of a refusal could not be measured"
        if slowest > REFUSED_MS:
            yield f"at {times} × the capacity a 503 takes {slowest:.0f} ms"
        if other := max(run.other for run in runs):
            yield f"at {times} × the capacity {other:.0f} requests/s ended without an answer or a 503"
    capacity, started = rounds[-1][1].good, time.perf_counter()
    while (again := wrk(server.url, CLIENTS, 0, 2)[0]) < MIN_GOODPUT * capacity:
        if time.perf_counter() - started > RECOVERY_SECONDS:
            yield f"{RECOVERY_SECONDS:g} s after the overload {again:.0f} requests/s are answered, not {capacity:.0f}"
            return
    print(f"back to {again:.0f} requests/s within {time.perf_counter() - started:.1f} s")


class Load(NamedTuple):
    """The figures of one overload."""

    good: float  # answers per second
    other: float  # requests per second that ended without an answer or a 503
    share: float  # answers per second as a share of the capacity
    refusals: int  # probes that were refused
    slowest: float  # p99 of the time that their refusal took, in milliseconds


def under_load(server: ServerProcess, client: httpx.Client, seconds: int) -> dict[int, Load]:
    """Measure the capacity and each overload. Returns their figures by multiple of the capacity, 1 for itself."""
    capacity, _, other = wrk(server.url, CLIENTS, 0, seconds)
    print(f"capacity of persistent: {capacity:.0f} requests/s")
    loads = {1: Load(capacity, other, 1.0, 0, 0.0)}
    for times in OVERLOADS:
        pause = round(OVERLOADED / (times * capacity) * 1e3)  # milliseconds with which the connections offer that rate
        with probe_refusals(client) as refusals:
            good, refused, other = wrk(server.url, OVERLOADED, pause, seconds)
        slowest = float(np.percentile(refusals, 99)) if refusals else 0.0
        loads[times] = Load(good, other, good / capacity, len(refusals), slowest)
        print(
            f"{times} × offered: {good + refused:.0f}/s came, {good:.0f}/s answered ({good / capacity:.2f} of the"
            f" capacity), {refused:.0f}/s refused; a 503 took {slowest:.0f} ms (p99 of {len(refusals)})"
        )
    return loads


@contextmanager
def probe_refusals(client: httpx.Client) -> Iterator[list[float]]:
    """Send probes from a separate process. At exit the list holds the milliseconds that refusals took."""
    code = (
        "import sys, time, httpx\n"
        "with httpx.Client(base_url=sys.argv[1], trust_env=False, timeout=30) as client:\n"
        "    while True:\n"
        "        began = time.perf_counter()\n"
        "        status = client.post('/predict', json={'text': 'probe'}).status_code\n"
        "        print(status, (time.perf_counter() - began) * 1e3, flush=True)\n"
        "        time.sleep(0.02)\n"
    )
    refusals: list[float] = []
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen([sys.executable, "-c", code, str(client.base_url)], stdout=output)
        try:
            yield refusals
        finally:
            process.kill()
            process.wait()
            output.seek(0)
            lines = [line.split() for line in output.read().splitlines()]
            refusals += [float(line[1]) for line in lines if len(line) == 2 and line[0] == "503"]


def wrk(url: str, connections: int, pause: int, seconds: int) -> tuple[float, float, float]:
    """Load the server with wrk. Returns the answered, refused and other requests per second."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "post.lua"
        script.write_text(LUA.replace("SENTENCE", SENTENCE))
        command = [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds}s",
            "-s",
            str(script),
            f"{url}/predict",
            "--",
            str(pause),
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        except FileNotFoundError:
            sys.exit("wrk is missing; install it (Debian: apt-get install wrk).")
    [line] = [line for line in done.stdout.splitlines() if line.startswith("COUNTS")]
    good, refused, other, microseconds = map(float, line.split()[1:])
    return tuple(count / (microseconds / 1e6) for count in (good, refused, other))  # type: ignore[return-value]


if __name__ == "__main__":
    main()
