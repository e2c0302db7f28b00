"""The competitors of `python -m experiments.peers`: bare forwards, other servers, and this one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from core.bench.server import launch, serve
from core.config.choices import LoaderChoice
from core.errors import ResidencyError, TrialFailed
from core.plugins import load_plugins
from core.system.threads import cores
from experiments.peers.served import CONNECTIONS, TEXT, Start, idle_pss, load, running

PEERS = Path(__file__).resolve().parent
EXPORTING = ("onnx", "onnxruntime")  # the packages that export and check an ONNX graph
CONFIGURATIONS = {"litserve onnxruntime": ("litserve onnxruntime 2 workers", "litserve onnxruntime 1 worker")}


class Figures(NamedTuple):
    """The figures of a competitor in a round, in milliseconds, seconds and MiB."""

    rate: float
    p50: float | None
    p99: float | None
    alone: float  # p50 with one connection; for a bare forward, the time for one text
    first_answer: float | None  # seconds since exec
    pss: float | None


class Competitor(NamedTuple):
    """How a competitor is measured, and what it requires."""

    measure: Callable[[int], Figures]  # takes seconds
    bare: str | None = None  # the name of the bare forward to compare with
    packages: tuple[str, ...] = ()  # required packages
    peer_python: str | None = None  # the interpreter that needs the packages; None: this one
    loader: LoaderChoice | None = None  # the loader of Residency that is required
    reads_graph: bool = False  # whether it needs the exported ONNX graph


def competitors(model: str, checkpoint: Path, graphs: Path, peer_python: str) -> dict[str, Competitor]:
    """All competitors by name. `graphs` is the folder of the ONNX graphs, which may be written later."""
    common = {"checkpoint": str(checkpoint), "threads": cores()}
    ort = common | {"engine": "onnxruntime", "graph": str(graphs / "float32.onnx")}
    openvino = common | {"engine": "openvino", "graph": str(graphs / "float32.onnx")}
    engines: dict[str, tuple[dict[str, Any], str]] = {  # arguments of open_classifier, and our loader's dtype
        "onnxruntime": (ort, "float32"),
        "onnxruntime int8": (ort | {"graph": str(graphs / "int8.onnx")}, "int8"),
        "openvino": (openvino | {"precision": "f32"}, "float32"),
        "openvino bfloat16": (openvino | {"precision": "bf16"}, "bfloat16"),
    }

    def mapped_loop(**options: Any) -> Competitor:
        return Competitor(partial(measure_bare, {"engine": "mapped", "checkpoint": str(checkpoint)} | options))

    def engine_loop(classifier: dict[str, Any]) -> Competitor:
        return Competitor(partial(measure_bare, classifier), packages=(classifier["engine"],), reads_graph=True)

    def app(name: str, **variables: str) -> Start:
        return partial(serve, {}, f"{name}:app", PEERS, variables=variables)

    def pipeline(**variables: str) -> Competitor:
        return Competitor(
            partial(measure_server, app("pipeline_app", PIPELINE_MODEL=str(checkpoint), **variables)), "bare"
        )

    def fastapi(classifier: dict[str, Any], bare: str) -> Competitor:
        start = app("fastapi_app", CLASSIFIER=json.dumps(classifier))
        return Competitor(partial(measure_server, start), bare, packages=(classifier["engine"],), reads_graph=True)

    def litserve(classifier: dict[str, Any], bare: str, *, workers: int, batch: int, wait: float) -> Competitor:
        argument = json.dumps(classifier | {"threads": max(1, cores() // workers)})  # more would compete for the cores
        command = [peer_python, str(PEERS / "litserve_app.py"), argument]
        command += ["--workers", str(workers), "--batch", str(batch), "--wait", str(wait)]
        start = partial(launch, command, os.environ)
        packages = ("litserve", "tokenizers", classifier["engine"])
        return Competitor(
            partial(measure_server, start), bare, packages, peer_python, reads_graph="graph" in classifier
        )

    def ours(strategy: str, bare: str, loader: dict[str, Any], **options: Any) -> Competitor:
        chosen = [{"strategy": strategy, "loader": loader, "options": options}]
        start = partial(serve, {"strategies": chosen, "models": {"model": model}})
        route = "/predict" if strategy == "persistent" else f"/predict-{strategy}"
        packages = (loader["name"],) if loader["name"] in ("onnxruntime", "openvino") else ()
        choice = LoaderChoice.model_validate(loader)
        return Competitor(partial(measure_server, start, route=route), bare, packages=packages, loader=choice)

    two_workers, one_worker = CONFIGURATIONS["litserve onnxruntime"]
    return {
        "bare": mapped_loop(),
        "bare packed": mapped_loop(pack=True),
        "bare bfloat16": mapped_loop(dtype="bfloat16"),
        **{f"bare {name}": engine_loop(classifier) for name, (classifier, _) in engines.items()},
        "pipeline": pipeline(),
        "pipeline on demand": pipeline(PIPELINE_PER_REQUEST="1"),
        **{f"fastapi {name}": fastapi(classifier, f"bare {name}") for name, (classifier, _) in engines.items()},
        "litserve": litserve(common | {"engine": "transformers"}, "bare", workers=2, batch=16, wait=0.002),
        two_workers: litserve(ort, "bare onnxruntime", workers=2, batch=8, wait=0.0005),
        one_worker: litserve(ort, "bare onnxruntime", workers=1, batch=16, wait=0.0005),
        "residency transformers": ours("persistent", "bare", {"name": "transformers"}),
        "residency mapped": ours("persistent", "bare", {"name": "mapped"}),
        "residency packed": ours("persistent", "bare packed", {"name": "mapped", "pack": True}),
        "residency bfloat16": ours("persistent", "bare bfloat16", {"name": "mapped", "dtype": "bfloat16"}),
        **{
            f"residency {name}": ours("persistent", f"bare {name}", {"name": classifier["engine"], "dtype": dtype})
            for name, (classifier, dtype) in engines.items()
        },
        "on-demand mapped": ours("on-demand", "bare", {"name": "mapped"}),
        "on-demand mapped share": ours("on-demand", "bare", {"name": "mapped"}, share=True),
        "on-demand onnxruntime": ours("on-demand", "bare onnxruntime", {"name": "onnxruntime"}),
    }


def measure_bare(classifier: Mapping[str, Any], seconds: int) -> Figures:
    """Measure a classifier in a loop, without a server. Raises TrialFailed."""
    measured = json.loads(run_script("bare_forward.py", json.dumps(classifier), TEXT, str(seconds)))
    return Figures(measured["texts_per_second"], None, None, measured["one_text_ms"], None, None)


def measure_server(start: Start, seconds: int, route: str = "/predict") -> Figures:
    """Measure a server with many connections, and with one. Raises TrialFailed."""
    with running(start, route) as (server, first_answer):
        load(server.url + route, CONNECTIONS, min(seconds, 2))  # warm-up
        together = load(server.url + route, CONNECTIONS, seconds)
        alone = load(server.url + route, 1, seconds)
        rate = together["requests"] / together["seconds"]
        return Figures(rate, together["p50"], together["p99"], alone["p50"], first_answer, idle_pss(server))


def run_script(name: str, *arguments: str) -> str:
    """Run a script of this folder, and return its output. Raises TrialFailed."""
    command = [sys.executable, str(PEERS / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TrialFailed(f"{name} ended with status {done.returncode}: {done.stderr[-300:].strip()}")
    return done.stdout


def missing_requirement(competitor: Competitor) -> str | None:
    """A sentence with what the competitor lacks on this machine, and the remedy; None if it can be measured."""
    if loader := competitor.loader:
        try:
            load_plugins().loader(loader.name).validate(loader.options)
        except ResidencyError as error:
            return str(error)
    python = competitor.peer_python or sys.executable
    if not shutil.which(python):
        return f"there is no interpreter {python}: name another one with --peer-python."
    if names := missing(python, competitor.packages):
        another = ", or name another interpreter with --peer-python" if competitor.peer_python else ""
        return f"{python} lacks {names}: install it there{another}."
    if competitor.reads_graph and (names := missing(sys.executable, EXPORTING)):
        return f"{sys.executable} lacks {names}, which exports its ONNX graph: install it there."
    if competitor.bare and not shutil.which("wrk"):
        return "wrk, which sends the requests, is missing: install it (apt install wrk)."
    return None


@cache
def missing(python: str, packages: tuple[str, ...]) -> str:
    """The packages that the interpreter cannot import, separated by commas."""
    script = "import sys, importlib.util; print(*(p for p in sys.argv[1:] if not importlib.util.find_spec(p)))"
    done = subprocess.run([python, "-c", script, *packages], capture_output=True, text=True, check=False)
    return ", ".join(done.stdout.split() if done.returncode == 0 else packages)
