"""Compiles a checkpoint's graph, and writes the result to the cache. Needs no torch.

A separate process runs it: python -m core.loaders.openvino.compile CHECKPOINT DTYPE prints the result as a line of
JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...checkpoints import checkpoint
from ...checkpoints.arrays import MappedArrays
from ...checkpoints.cache import write_once
from ...checkpoints.heads import read_heads
from ...errors import ModelReferenceError, NoTokens
from ...tasks.embed import EMBED
from ...tasks.functions import Floats
from ..onnxruntime import conversion, facts
from ..onnxruntime.common import shared_tokenizer, text_model
from ..onnxruntime.conversion import Converted
from ..onnxruntime.facts import GraphFacts
from ..onnxruntime.network import BoundNetwork
from ..onnxruntime.session import new_session
from ..probe import LONG, OVER_LIMIT, SHORT
from ..text_model import TextModel
from .compiled import Compiled
from .network import DEVICE, OpenVinoNetwork, settings
from .runtime import openvino

opset = openvino.opset13
Arrays = dict[str, np.ndarray[Any, Any]]  # by the name of the checkpoint's tensor
TEXTS = [  # the batches, of many lengths, whose answers are compared
    *([text] for text in (SHORT, LONG, "", "good", "good " * 12, "good " * 40, OVER_LIMIT)),
    [SHORT, LONG],
    [LONG, "", SHORT, "good " * 12, LONG],
]
# How far numbers may be from those that ONNX Runtime computes: a share of their spread, and a share of their size.
DISTANCE = {"float32": 1e-3, "bfloat16": 5e-2, "int8": 1e-1}
ROUNDING = {"float32": 1e-5, "bfloat16": 1e-2, "int8": 1e-2}


class CannotCompile(ModelReferenceError):
    """A checkpoint that OpenVINO cannot compile, or whose compilation gives other answers."""


def compile_checkpoint(directory: Path, dtype: str) -> str:
    """Compile the checkpoint, and write the result to the cache. Returns why that is impossible; "" if it is done.

    Raises ModelReferenceError for a failure that may be temporary.
    """
    converted = conversion.ensure_converted(directory)
    compiled = Compiled(directory, converted, dtype)
    nbytes = checkpoint.size(directory, float_bytes=4)
    facts.cache_folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        write_once(f"onnx/{compiled.name}", nbytes, partial(_write, directory, converted, dtype))
    except CannotCompile as error:
        return str(error)
    return ""


def _write(directory: Path, converted: Converted, dtype: str, target: Path) -> None:
    graph, kept = converted.graph.directory, converted.graph.facts
    weights = MappedArrays(converted.weights)
    arrays = {tensor: weights[tensor] for tensor in set(kept.weights.values())}
    for name in sorted(arrays):
        if np.issubdtype(arrays[name].dtype, np.floating) and np.isnan(arrays[name]).any():
            raise CannotCompile(f"its weights contain values that are not numbers ({name})")
    core = openvino.Core()
    try:
        model = _read_with_weights(core, graph / facts.CONSTANTS, kept, arrays)
        if dtype == "int8":
            _quantize(model, arrays)
        compiled = core.compile_model(model, DEVICE, settings(dtype))
        (target / Compiled.BLOB).write_bytes(compiled.export_model().getvalue())
        network = OpenVinoNetwork(core, target / Compiled.BLOB, kept, dtype, 0)
    except RuntimeError as error:
        raise CannotCompile(f"OpenVINO cannot compile it: {_cause(error)}") from error
    heads = read_heads(directory)
    tokenizer = shared_tokenizer(directory, converted, heads)
    wrap = partial(text_model, heads, converted, tokenizer, phases={}, loaded_by="")
    _compare(wrap(BoundNetwork(new_session(graph / facts.GRAPH), weights, kept)), wrap(network), dtype)


def _read_with_weights(core: Any, graph: Path, kept: GraphFacts, arrays: Arrays) -> Any:
    """The runtime's model of the graph, with the checkpoint's weights.

    The graph refers to weights in a file, all at offset 0. The runtime reads them from a file of zeros, and then they
    are replaced, so that no ONNX has to be written.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / graph.name
        copy.write_bytes(graph.read_bytes())
        with (Path(folder) / "weights").open("wb") as file:
            file.truncate(max(array.nbytes for array in arrays.values()))
        model = core.read_model(copy)
    constants = {name: opset.constant(array, name=name) for name, array in arrays.items()}
    for node in model.get_ops():
        if node.get_type_name() == "Constant" and (tensor := kept.weights.get(node.get_friendly_name())):
            _replace(node, constants[tensor])
    return model


def _replace(node: Any, by: Any) -> None:
    for user in node.output(0).get_target_inputs():
        user.replace_source_output(by.output(0))


def _quantize(model: Any, arrays: Arrays) -> None:
    """Turn the weights of linear layers into 8-bit integers. Each output channel has its own scale.

    Embeddings are left as they are, because a forward reads only a few of their rows.
    """
    for node in model.get_ops():
        array = arrays.get(node.get_friendly_name()) if node.get_type_name() == "Constant" else None
        if array is None or array.ndim != 2 or array.dtype != np.float32:
            continue
        axes = set(_channels(node, 1))
        if len(axes) != 1 or (axis := axes.pop()) is None:
            continue
        largest = np.abs(array).max(axis=1 - axis, keepdims=True)
        scale = np.where(largest > 0, largest, 1).astype(np.float32) / 127
        integers = opset.constant(np.rint(array / scale).astype(np.int8))
        _replace(node, opset.multiply(opset.convert(integers, "f32"), opset.constant(scale)))


def _channels(node: Any, columns: int) -> Iterator[int | None]:
    """The axis of the matrix that becomes the output channels, for each use as a product's right side; None for others.

    `columns` is 1 if `node` returns the matrix itself, and 0 if it returns the transposed matrix.
    """
    for user in node.output(0).get_target_inputs():
        consumer = user.get_node()
        if consumer.get_type_name() == "Transpose":
            yield from _channels(consumer, 1 - columns)
        elif consumer.get_type_name() == "MatMul" and user.get_index() == 1:
            yield 1 - columns if consumer.get_attributes()["transpose_b"] else columns
        else:
            yield None


def _compare(expected: TextModel, found: TextModel, dtype: str) -> None:
    """Raise CannotCompile if the models give different answers, or if only one of them gives an answer."""
    pairs = [(_numbers(expected, texts), _numbers(found, texts)) for texts in TEXTS]
    if any((reference is None) != (numbers is None) for reference, numbers in pairs):
        raise CannotCompile("OpenVINO cannot compute all lengths of texts that ONNX Runtime can")
    both = [(reference, numbers) for reference, numbers in pairs if reference is not None and numbers is not None]
    every = np.concatenate([reference for reference, _ in both])
    least = 0.0 if expected.task == EMBED.name else 1.0  # the numbers of a vector may all be small
    spread, size = float(np.ptp(every, axis=0).max()), max(least, float(np.abs(every).max()))
    distance = max(float(np.abs(reference - numbers).max()) for reference, numbers in both)
    if not distance <= DISTANCE[dtype] * spread + ROUNDING[dtype] * size:
        raise CannotCompile(f"OpenVINO gives other answers than ONNX Runtime: its numbers differ by {distance:.3g}")


def _numbers(model: TextModel, texts: list[str]) -> Floats | None:
    """The numbers for the texts; None if the model cannot compute them."""
    try:
        return model.numbers(texts)
    except (NoTokens, RuntimeError, IndexError):
        return None


def _cause(error: RuntimeError) -> str:
    """The last line of the runtime's message, which is the innermost reason."""
    return str(error).partition("\nSummary:")[0].strip().rpartition("\n")[2][:200]


if __name__ == "__main__":
    try:
        print(json.dumps({"error": compile_checkpoint(Path(sys.argv[1]), sys.argv[2])}))
    except ModelReferenceError as failure:
        sys.exit(str(failure))
