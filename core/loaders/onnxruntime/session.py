"""Sessions of ONNX Runtime, one for each graph: all models of an architecture share it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import onnxruntime

from ...system.threads import forward_threads, helper_cores
from ..shared_cache import SharedCache
from . import facts

PROVIDERS = ["CPUExecutionProvider"]
sessions: SharedCache[Path, onnxruntime.InferenceSession] = SharedCache("sessions", 64)


def shared_session(graph: Path) -> onnxruntime.InferenceSession:
    """This process's session of the graph, which is made if there is none."""
    return sessions.get(graph, lambda: new_session(graph))


@cache
def prepare_forks() -> None:
    """Make the runtime initialise what a process's first session initialises, so that forked processes need not.

    That takes longer than the session itself. The session has one thread, the caller's, so no thread is started.
    """
    new_session(facts.SHIPPED / "graph" / facts.GRAPH, threads=1)


def new_session(graph: Path, threads: int | None = None) -> onnxruntime.InferenceSession:
    """A new session with `threads` threads, including the caller's; if None, with one for each core."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or forward_threads()
    if threads is None and (others := helper_cores()):  # binds each of the runtime's threads to one; counted from 1
        options.add_session_config_entry("session.intra_op_thread_affinities", ";".join(str(i + 1) for i in others))
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that spin after a forward keep the core from the event loop, and from the forward of another session,
    # whose threads are bound to the same cores: two packed models in turns take half as long again.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # The graph was optimised when it was written. Optimising again would find nothing, and double the load time.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(graph), options, providers=PROVIDERS)
