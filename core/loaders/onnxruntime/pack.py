"""Packs a checkpoint's weights: writes them in the layout that the runtime uses in memory. Needs no torch.

A separate process runs it: python -m core.loaders.onnxruntime.pack CHECKPOINT DTYPE prints the result as a line of
JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime import GraphOptimizationLevel, OrtValue, SessionOptions

from ...checkpoints import checkpoint
from ...checkpoints.arrays import MappedArrays
from ...checkpoints.cache import write_once
from ...errors import ModelReferenceError
from ..text_model import Inputs, Network
from . import conversion, facts
from .conversion import Converted
from .network import BoundNetwork, OnnxNetwork
from .packed import Gain, Packed
from .session import PROVIDERS, new_session, shared_session

TOKENS = 20  # of a typical text
SECONDS = 0.3  # for measuring each of the load and the two forwards


def pack(directory: Path, dtype: str) -> str:
    """Pack the checkpoint's weights, and write them to the cache. Returns why that is impossible; "" if it is done."""
    try:
        converted = conversion.ensure_converted(directory)
        packed = Packed(directory, converted, dtype)
        nbytes = 2 * checkpoint.size(directory, float_bytes=4)
        write_once(f"onnx/{packed.name}", nbytes, partial(_write, converted, dtype))
    except ModelReferenceError as error:
        return str(error)
    return ""


def _write(converted: Converted, dtype: str, target: Path) -> None:
    weights = MappedArrays(converted.weights)
    arrays = {name: weights[tensor] for name, tensor in converted.graph.facts.weights.items()}
    graph = converted.graph.directory / facts.CONSTANTS
    if dtype == "int8":
        with tempfile.TemporaryDirectory(dir=target) as folder:
            _pack(_quantize(graph, arrays, Path(folder)), {}, target)
    else:
        _pack(graph, arrays, target)
    packed = OnnxNetwork(new_session(target / facts.GRAPH), converted.graph.facts, dtype, 0)
    bound = BoundNetwork(shared_session(converted.graph.directory / facts.GRAPH), weights, converted.graph.facts)
    gain = _measure(lambda: new_session(target / facts.GRAPH), bound, packed)
    (target / facts.FACTS).write_text(json.dumps(asdict(gain)) + "\n")


def _options(arrays: dict[str, Any]) -> SessionOptions:
    options = SessionOptions()
    options.log_severity_level = 3
    if arrays:
        values = [OrtValue.ortvalue_from_numpy(array) for array in arrays.values()]
        options.add_external_initializers(list(arrays), values)
    return options


def _pack(graph: Path, arrays: dict[str, Any], target: Path) -> None:
    """Write the optimised graph and its weights, including the layout that this processor multiplies.

    A load maps both files. (ONNX Runtime, "Saving pre-packed weights".)
    """
    options = _options(arrays)
    options.graph_optimization_level = GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(target / facts.GRAPH)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
    options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    options.add_session_config_entry("session.save_external_prepacked_constant_initializers", "1")
    onnxruntime.InferenceSession(str(graph), options, providers=PROVIDERS)


def _quantize(graph: Path, arrays: dict[str, Any], folder: Path) -> Path:
    """Write the graph with its weights as 8-bit integers to `folder`, and return its file.

    Each output channel has its own scale. Weights are unsigned, because products of signed weights saturate on
    processors without VNNI.
    """
    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError as error:
        raise ModelReferenceError(f"quantizing needs {error.name}, which is not installed") from error

    options = _options(arrays)
    # Folds transpositions of weights, so that products have constant inputs, which can be quantized.
    options.graph_optimization_level = GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folder / "whole.onnx")
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "whole")
    onnxruntime.InferenceSession(str(graph), options, providers=PROVIDERS)
    quantize_dynamic(
        folder / "whole.onnx",
        folder / "quantized.onnx",
        per_channel=True,
        weight_type=QuantType.QUInt8,
        use_external_data_format=True,
    )
    return folder / "quantized.onnx"


def _measure(load: Callable[[], object], bound: Network, packed: Network) -> Gain:
    """The times of a load of the packed weights, and of a forward without and with them.

    Takes the minimum of each, because other work of the machine only adds to a time, and not equally to all.
    """
    rows = np.ones((1, TOKENS), dtype=np.int64)
    text: Inputs = dict.fromkeys(bound.inputs, rows)
    actions: list[Callable[[], object]] = [load, partial(bound.forward, text), partial(packed.forward, text)]
    times: list[list[float]] = [[] for _ in actions]
    end = time.perf_counter() + SECONDS * len(actions)
    while not times[0] or time.perf_counter() < end:
        for act, taken in zip(actions, times, strict=True):
            began = time.perf_counter()
            act()
            taken.append(time.perf_counter() - began)
    return Gain(*map(min, times))


if __name__ == "__main__":
    print(json.dumps({"error": pack(Path(sys.argv[1]), sys.argv[2])}))
