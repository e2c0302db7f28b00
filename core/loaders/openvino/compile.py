"""Compiles a checkpoint's graph into the cache; needs no torch, and a process of its own runs it.

python -m core.loaders.openvino.compile CHECKPOINT DTYPE    says in a line of JSON what came of it
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
from ...checkpoints.cache import cached
from ...checkpoints.heads import Floats
from ...errors import ModelReferenceError, NoTokens
from ..classifier import Classifier
from ..onnxruntime import conversion, facts
from ..onnxruntime.common import classifier, tokenizer_of
from ..onnxruntime.conversion import Converted
from ..onnxruntime.facts import GraphFacts
from ..onnxruntime.network import BoundNetwork
from ..onnxruntime.session import new_session
from ..probe import LONG, OVER_LIMIT, SHORT
from .compiled import Compiled
from .engine import openvino
from .network import DEVICE, OpenVinoNetwork, settings

opset = openvino.opset13
Arrays = dict[str, np.ndarray[Any, Any]]  # by the name of the checkpoint's tensor
TEXTS = [  # for which answers are compared, of many lengths
    *([text] for text in (SHORT, LONG, "", "good", "good " * 12, "good " * 40, OVER_LIMIT)),
    [SHORT, LONG],
    [LONG, "", SHORT, "good " * 12, LONG],
]
# How far logits may be from the graph's by ONNX Runtime: of their spread, and of their size.
DISTANCE = {"float32": 1e-3, "bfloat16": 5e-2, "int8": 1e-1}
ROUNDING = {"float32": 1e-5, "bfloat16": 1e-2, "int8": 1e-2}


class CannotCompile(ModelReferenceError):
    """A checkpoint that OpenVINO does not compile, or not to what it should."""


def compile_checkpoint(directory: Path, dtype: str) -> str:
    """Compiles the checkpoint, and returns what cannot be done; "" where it is compiled.

    Raises ModelReferenceError for what may be done another time.
    """
    converted = conversion.converted(directory)
    compiled = Compiled(directory, converted, dtype)
    nbytes = checkpoint.size(directory, float_bytes=4)
    facts.folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        cached(f"onnx/{compiled.name}", nbytes, partial(_write, directory, converted, dtype))
    except CannotCompile as error:
        return str(error)
    return ""


def _write(directory: Path, converted: Converted, dtype: str, target: Path) -> None:
    graph, kept = converted.graph.directory, converted.graph.facts
    weights = MappedArrays(converted.weights)
    arrays = {tensor: weights[tensor] for tensor in set(kept.weights.values())}
    for name in sorted(arrays):
        if np.issubdtype(arrays[name].dtype, np.floating) and np.isnan(arrays[name]).any():
            raise CannotCompile(f"its weights hold values that are not numbers ({name})")
    core = openvino.Core()
    try:
        model = _with_weights(core, graph / facts.CONSTANTS, kept, arrays)
        if dtype == "int8":
            _quantize(model, arrays)
        compiled = core.compile_model(model, DEVICE, settings(dtype))
        (target / Compiled.BLOB).write_bytes(compiled.export_model().getvalue())
        network = OpenVinoNetwork(core, target / Compiled.BLOB, kept, dtype, 0)
    except RuntimeError as error:
        raise CannotCompile(f"OpenVINO cannot compile it: {_cause(error)}") from error
    tokenizer = tokenizer_of(directory, converted)
    wrap = partial(classifier, directory, converted, tokenizer, phases={}, loaded_by="")
    _compare(wrap(BoundNetwork(new_session(graph / facts.GRAPH), weights, kept)), wrap(network), dtype)


def _with_weights(core: Any, graph: Path, kept: GraphFacts, arrays: Arrays) -> Any:
    """The graph with the checkpoint's weights.

    Its own lie in a file that it names, and each begins where that does. They are read as zeros from a file with no
    content, and then replaced, so that nothing needs to write ONNX.
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
    """Have the weights of the linear layers as 8-bit integers, each output channel with a scale of its own.

    Of a table that is only looked up, a forward reads a few rows, whatever their type.
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
    """For each use of a matrix, along which of its axes the output channels of the product lie; None for other uses.

    `columns` is 1 where `node` gives the matrix as it is, 0 where it gives it turned.
    """
    for user in node.output(0).get_target_inputs():
        taker = user.get_node()
        if taker.get_type_name() == "Transpose":
            yield from _channels(taker, 1 - columns)
        elif taker.get_type_name() == "MatMul" and user.get_index() == 1:
            yield 1 - columns if taker.get_attributes()["transpose_b"] else columns
        else:
            yield None


def _compare(expected: Classifier, found: Classifier, dtype: str) -> None:
    """Raise CannotCompile where one answers what the other does not, or something else."""
    pairs = [(_logits(expected, texts), _logits(found, texts)) for texts in TEXTS]
    if any((wanted is None) != (logits is None) for wanted, logits in pairs):
        raise CannotCompile("OpenVINO cannot compute all lengths of texts that ONNX Runtime can")
    known = [(wanted, logits) for wanted, logits in pairs if wanted is not None and logits is not None]
    every = np.concatenate([wanted for wanted, _ in known])
    near = DISTANCE[dtype] * float(np.ptp(every, axis=0).max()) + ROUNDING[dtype] * max(1.0, float(np.abs(every).max()))
    far = max(float(np.abs(wanted - logits).max()) for wanted, logits in known)
    if not far <= near:
        raise CannotCompile(f"OpenVINO answers otherwise than ONNX Runtime: logits differ by {far:.3g}")


def _logits(model: Classifier, texts: list[str]) -> Floats | None:
    """None where it cannot compute them."""
    try:
        return model.logits(texts)
    except (NoTokens, RuntimeError, IndexError):
        return None


def _cause(error: RuntimeError) -> str:
    """What the engine says last, which is the innermost reason."""
    return str(error).partition("\nSummary:")[0].strip().rpartition("\n")[2][:200]


if __name__ == "__main__":
    try:
        print(json.dumps({"error": compile_checkpoint(Path(sys.argv[1]), sys.argv[2])}))
    except ModelReferenceError as failure:
        sys.exit(str(failure))
