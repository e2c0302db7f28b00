"""Sessions of ONNX Runtime over graphs: one for each graph, however many models it computes."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from ...threads import cores
from ..kept import Kept

sessions: Kept[Path, onnxruntime.InferenceSession] = Kept("sessions", 64)


def session_of(graph: Path) -> onnxruntime.InferenceSession:
    """The session of the graph that this process has, or a new one."""
    return sessions.get(graph, lambda: new_session(graph))


def new_session(graph: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # It was optimised when it was made: to look through it once more takes as long as all the rest, and finds nothing.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
