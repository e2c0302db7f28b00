"""Sessions of ONNX Runtime over graphs: one for each graph, however many models it computes."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import onnxruntime

from ...system.threads import forward_threads, other_cores
from ..kept import Kept
from . import facts

PROVIDERS = ["CPUExecutionProvider"]
sessions: Kept[Path, onnxruntime.InferenceSession] = Kept("sessions", 64)


def session_of(graph: Path) -> onnxruntime.InferenceSession:
    """The session of the graph that this process has, or a new one."""
    return sessions.get(graph, lambda: new_session(graph))


@cache
def prepare_forks() -> None:
    """Have the engine make what a process's first session makes for all others, so that a forked process finds it.

    That takes longer than the session itself. It is the graph that ships, and one thread computes it: none is started.
    """
    new_session(facts.SHIPPED / "graph" / facts.GRAPH, threads=1)


def new_session(graph: Path, threads: int | None = None) -> onnxruntime.InferenceSession:
    """A session that computes with all cores, or with that many threads, the caller's included."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or forward_threads()
    if threads is None and (others := other_cores()):  # each of the engine's threads on one of them, counted from 1
        options.add_session_config_entry("session.intra_op_thread_affinities", ";".join(str(i + 1) for i in others))
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that spin when a forward is over take the core from the event loop, and from another session's forward,
    # whose own threads have the same cores: two packed models in turns take half as long again.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # It was optimised when it was made: to look through it once more takes as long as all the rest, and finds nothing.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(graph), options, providers=PROVIDERS)
