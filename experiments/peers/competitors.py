"""Whom `peers.py` compares: bare forwards, servers that others wrote, and this one."""

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
from experiments.peers.served import (
    CONNECTIONS,
    TEXT,
    Start,
    idle_pss,
    load,
    running,
)

PEERS = Path(__file__).resolve().parent
EXPORTING = ("onnx", "onnxruntime")  # packages that an ONNX graph is made and checked with
CONFIGURATIONS = {"litserve onnxruntime": ("litserve onnxruntime 2 workers", "litserve onnxruntime 1 worker")}


class Figures(NamedTuple):
    """One round of one competitor: milliseconds, seconds, MiB."""

    rate: float
    p50: float | None
    p99: float | None
    alone: float  # p50 with one connection; of a bare forward, its time for one text
    first_answer: float | None  # since exec
    pss: float | None


class Competitor(NamedTuple):
    """How it is measured for some seconds, and what it needs."""

    measure: Callable[[int], Figures]
    bare: str | None = None  # the loop whose forward a server's is compared with
    packages: tuple[str, ...] = ()  # that have to be installed
    peer_python: str | None = None  # the interpreter that has to have them, where it need not be this one
    loader: LoaderChoice | None = None  # that Residency has to have
    reads_graph: bool = False


def competitors(model: str, checkpoint: Path, graphs: Path, peer_python: str) -> dict[str, Competitor]:
    """All by name. Those that read an ONNX graph find it in `graphs` when they are measured."""
    common = {"checkpoint": str(checkpoint), "threads": cores()}
    ort = common | {"engine": "onnxruntime", "graph": str(graphs / "float32.onnx")}
    openvino = common | {"engine": "openvino", "graph": str(graphs / "float32.onnx")}
    engines: dict[str, tuple[dict[str, Any], str]] = {  # arguments of open_classifier, and our loader's dtype
        "onnxruntime": (ort, "float32"),
        "onnxruntime int8": (ort | {"graph": str(graphs / "int8.onnx")}, "int8"),
        "openvino": (openvino | {"precision": "f32"}, "float32"),
        "openvino bfloat16": (openvino | {"precision": "bf16"}, "bfloat16"),
    }

    def mapped(**options: Any) -> Competitor:
        return Competitor(partial(bare, {"engine": "mapped", "checkpoint": str(checkpoint)} | options))

    def looped(classifier: dict[str, Any]) -> Competitor:
        return Competitor(partial(bare, classifier), packages=(classifier["engine"],), reads_graph=True)

    def app(name: str, **variables: str) -> Start:
        return partial(serve, {}, f"{name}:app", PEERS, variables=variables)

    def pipeline(**variables: str) -> Competitor:
        return Competitor(partial(served, app("pipeline_app", PIPELINE_MODEL=str(checkpoint), **variables)), "bare")

    def fastapi(classifier: dict[str, Any], bare: str) -> Competitor:
        start = app("fastapi_app", CLASSIFIER=json.dumps(classifier))
        return Competitor(partial(served, start), bare, packages=(classifier["engine"],), reads_graph=True)

    def litserve(classifier: dict[str, Any], bare: str, *, workers: int, batch: int, wait: float) -> Competitor:
        argument = json.dumps(classifier | {"threads": max(1, cores() // workers)})  # else they take turns on the cores
        command = [peer_python, str(PEERS / "litserve_app.py"), argument]
        command += ["--workers", str(workers), "--batch", str(batch), "--wait", str(wait)]
        start = partial(launch, command, os.environ)
        packages = ("litserve", "tokenizers", classifier["engine"])
        return Competitor(partial(served, start), bare, packages, peer_python, reads_graph="graph" in classifier)

    def ours(strategy: str, bare: str, loader: dict[str, Any], **options: Any) -> Competitor:
        chosen = [{"strategy": strategy, "loader": loader, "options": options}]
        start = partial(serve, {"strategies": chosen, "models": {"model": model}})
        route = "/predict" if strategy == "persistent" else f"/predict-{strategy}"
        packages = (loader["name"],) if loader["name"] in ("onnxruntime", "openvino") else ()
        choice = LoaderChoice.model_validate(loader)
        return Competitor(partial(served, start, route=route), bare, packages=packages, loader=choice)

    two_workers, one_worker = CONFIGURATIONS["litserve onnxruntime"]
    return {
        "bare": mapped(),
        "bare packed": mapped(pack=True),
        "bare bfloat16": mapped(dtype="bfloat16"),
        **{f"bare {name}": looped(classifier) for name, (classifier, _) in engines.items()},
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


def bare(classifier: Mapping[str, Any], seconds: int) -> Figures:
    measured = json.loads(run_script("bare_forward.py", json.dumps(classifier), TEXT, str(seconds)))
    return Figures(measured["texts_per_second"], None, None, measured["one_text_ms"], None, None)


def served(start: Start, seconds: int, route: str = "/predict") -> Figures:
    with running(start, route) as (server, first_answer):
        load(server.url + route, CONNECTIONS, min(seconds, 2))  # the warm-up
        together = load(server.url + route, CONNECTIONS, seconds)
        alone = load(server.url + route, 1, seconds)
        rate = together["requests"] / together["seconds"]
        return Figures(rate, together["p50"], together["p99"], alone["p50"], first_answer, idle_pss(server))


def run_script(name: str, *arguments: str) -> str:
    """What a script of the peers' printed. Raises TrialFailed."""
    command = [sys.executable, str(PEERS / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TrialFailed(f"{name} ended with status {done.returncode}: {done.stderr[-300:].strip()}")
    return done.stdout


def why_left_out(competitor: Competitor) -> str | None:
    """A sentence that says what keeps it from being measured here, and the remedy."""
    if loader := competitor.loader:
        try:
            load_plugins().loader(loader.name).validate(loader.options)
        except ResidencyError as error:
            return str(error)
    python = competitor.peer_python or sys.executable
    if not shutil.which(python):
        return f"there is no interpreter {python}: name another one by --peer-python."
    if names := missing(python, competitor.packages):
        another = ", or name another interpreter by --peer-python" if competitor.peer_python else ""
        return f"{python} lacks {names}: install it there{another}."
    if competitor.reads_graph and (names := missing(sys.executable, EXPORTING)):
        return f"{sys.executable} lacks {names}, with which its ONNX graph is made: install it there."
    if competitor.bare and not shutil.which("wrk"):
        return "wrk is missing, which asks the servers: install it (apt install wrk)."
    return None


@cache
def missing(python: str, packages: tuple[str, ...]) -> str:
    """Those of the packages that the interpreter cannot import, in words."""
    script = "import sys, importlib.util; print(*(p for p in sys.argv[1:] if not importlib.util.find_spec(p)))"
    done = subprocess.run([python, "-c", script, *packages], capture_output=True, text=True, check=False)
    return ", ".join(done.stdout.split() if done.returncode == 0 else packages)
