"""Writes a checkpoint's weights as the engine wants them in memory; needs no torch, and a process of its own runs it.

python -m core.loaders.onnxruntime.pack CHECKPOINT DTYPE    says in a line of JSON what came of it
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
from ...checkpoints.cache import cached
from ...errors import ModelReferenceError
from ..classifier import Inputs, Network
from . import conversion, facts
from .conversion import Converted
from .network import BoundNetwork, OnnxNetwork
from .packed import Gain, Packed
from .session import PROVIDERS, new_session, session_of

TOKENS = 20  # of a usual text
SECONDS = 0.3  # of measuring, for each way


def pack(directory: Path, dtype: str) -> str:
    """Packs the checkpoint's weights, and returns what cannot be done; "" where they are packed."""
    try:
        converted = conversion.converted(directory)
        packed = Packed(directory, converted, dtype)
        cached(f"onnx/{packed.name}", 2 * checkpoint.size(directory, float_bytes=4), partial(_write, converted, dtype))
    except ModelReferenceError as error:
        return str(error)
    return ""


def _write(converted: Converted, dtype: str, target: Path) -> None:
    weights = MappedArrays(converted.weights)
    arrays = {name: weights[tensor] for name, tensor in converted.graph.facts.weights.items()}
    graph = converted.graph.directory / facts.CONSTANTS
    if dtype == "int8":
        with tempfile.TemporaryDirectory(dir=target) as folder:
            _pack(_quantized(graph, arrays, Path(folder)), {}, target)
    else:
        _pack(graph, arrays, target)
    packed = OnnxNetwork(new_session(target / facts.GRAPH), converted.graph.facts, dtype, 0)
    bound = BoundNetwork(session_of(converted.graph.directory / facts.GRAPH), weights, converted.graph.facts)
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
    """Write the optimised graph, and beside it its weights, also in the order that this processor multiplies them in
    (ONNX Runtime, "Saving pre-packed weights"); both are mapped when it is loaded.
    """
    options = _options(arrays)
    options.graph_optimization_level = GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(target / facts.GRAPH)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
    options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    options.add_session_config_entry("session.save_external_prepacked_constant_initializers", "1")
    onnxruntime.InferenceSession(str(graph), options, providers=PROVIDERS)


def _quantized(graph: Path, arrays: dict[str, Any], folder: Path) -> Path:
    """The graph with its weights as 8-bit integers, each output channel with a scale of its own.

    Weights are unsigned: the products of signed ones are saturated on processors without VNNI.
    """
    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError as error:
        raise ModelReferenceError(f"quantizing needs {error.name}, which is not installed here") from error

    options = _options(arrays)
    # So that weights are constants of the products that are quantized, not turned before each.
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
    """What a load of the packed weights takes, and what each forward does with and without them.

    The least of several times: what else the machine does only adds to them, and not to each alike.
    """
    rows = np.ones((1, TOKENS), dtype=np.int64)
    text: Inputs = dict.fromkeys(bound.inputs, rows)
    ways: list[Callable[[], object]] = [load, partial(bound.forward, text), partial(packed.forward, text)]
    times: list[list[float]] = [[] for _ in ways]
    end = time.perf_counter() + SECONDS * len(ways)
    while not times[0] or time.perf_counter() < end:
        for way, taken in zip(ways, times, strict=True):
            began = time.perf_counter()
            way()
            taken.append(time.perf_counter() - began)
    return Gain(*map(min, times))


if __name__ == "__main__":
    print(json.dumps({"error": pack(Path(sys.argv[1]), sys.argv[2])}))
