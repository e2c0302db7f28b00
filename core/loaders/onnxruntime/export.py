"""Exports a checkpoint's graph and tokenizer to the cache. Imports torch, so it runs in a separate process.

python -m core.loaders.onnxruntime.export CHECKPOINT           prints the result as a line of JSON
python -m core.loaders.onnxruntime.export CHECKPOINT FOLDER    writes to FOLDER instead, for files that ship
"""

from __future__ import annotations

import io
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
import torch
from safetensors.torch import save_file

from ...checkpoints import checkpoint
from ...checkpoints.arrays import MappedArrays
from ...checkpoints.cache import CacheFull, remember, write_once
from ...checkpoints.dtypes import convert_dtype
from ...checkpoints.heads import read_output
from ...checkpoints.mapping import MappedTensors, Unmappable
from ...errors import ModelReferenceError
from ...tasks.functions import Floats
from .. import stock
from ..limits import is_limit
from ..mapped.template import match_tensors, tensors_by_id
from ..text_model import Inputs, TextModel
from ..torch_network import Tokenizer, TorchNetwork
from . import facts
from .facts import GraphFacts, TokenizerFacts
from .network import BoundNetwork
from .session import PROVIDERS, new_session
from .tokens import OUTPUTS, FastTokens, canonical

LARGEST = 1 << 24  # bytes of a graph without its weights
# How far logits may be from those of the module: a share of their spread, and a share of their size, which is the
# precision of float32.
DISTANCE = 1e-3
ROUNDING = 1e-5
SAMPLES = [
    "It was good.",
    "Not worth the money, and the worst of all the things that I have ever seen in my life.",
    "",
    " ",
    "  two  spaces\tand\ttabs\r\nand lines\n\n",
    "Don't! (really?) it's $5.00 -- e.g. 3,000.50% @home #1 a/b_c",
    "Ünïcödé Straße İstanbul naïve café e\u0301 ﬁ ﬀ ½ ①",
    "日本語のテキスト 中文字符 한국어 ไทย हिन्दी العربية עברית Русский",
    "👍🏽 👨‍👩‍👧 🇩🇪 \u200b\u200d\ufeff\u00ad\x00\x07\ud7ff\U0010ffff",
    "[CLS] [SEP] [MASK] [PAD] [UNK] <s> </s> <pad> <unk> <mask> <|endoftext|> <|im_start|>",
    "ALL CAPS mIxEd donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
    "word " * 700,
    "1234567890 " * 60 + "ende",
]


class NoGraph(ModelReferenceError):
    """A checkpoint whose architecture or tokenizer cannot be converted, so that no similar checkpoint can be."""


def export(directory: Path) -> str:
    """Convert what is not converted yet. Returns why that is impossible, and remembers it; "" if all is converted."""
    try:
        checkpoint.check(directory)
        tokenizer = stock.load_tokenizer(directory)
        if facts.find_tokenizer(directory) is None:
            _write_part("tokenizer", facts.tokenizer_key(directory), partial(write_tokenizer, directory, tokenizer))
        if facts.find_graph(directory) is None:
            _write_part("graph", facts.graph_key(directory), partial(write_graph, directory, tokenizer))
        graph = facts.find_graph(directory)
        if graph is not None and graph.facts.converts_weights:
            nbytes = checkpoint.size(directory, float_bytes=4)
            _write_part("weights", checkpoint.cached_sha256(directory)[:24], partial(write_weights, directory), nbytes)
    except (ModelReferenceError, Unmappable) as error:
        if not is_shortage(error):
            alike, alone = facts.failure_names(directory)
            remember(alike if isinstance(error, NoGraph) else alone, str(error))
        return str(error)
    return ""


def ship(directory: Path, folder: Path) -> str:
    """Convert the checkpoint to `folder`, for use as `facts.SHIPPED`. Returns "". Raises ModelReferenceError."""
    tokenizer = stock.load_tokenizer(directory)
    for kind, key, write in (
        ("tokenizer", facts.tokenizer_key(directory), write_tokenizer),
        ("graph", facts.graph_key(directory), write_graph),
    ):
        target = folder / kind
        target.mkdir(parents=True, exist_ok=True)
        write(directory, tokenizer, target)
        (target / facts.KEY).write_text(f"{key}\n")
    return ""


def _write_part(
    kind: Literal["graph", "tokenizer", "weights"], key: str, write: Callable[[Path], None], nbytes: int = LARGEST
) -> None:
    facts.cache_folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    write_once(f"onnx/{facts.cache_name(kind, key)}", nbytes, write)


def write_tokenizer(directory: Path, tokenizer: Tokenizer, target: Path) -> None:
    """Write to `target` what gives the same tokens as transformers' tokenizer.

    Raises ModelReferenceError if that is impossible.
    """
    stock_tokenizer = tokenizer.stock
    backend = getattr(stock_tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise NoGraph(f"its tokenizer ({type(stock_tokenizer).__name__}) is written in pure Python")
    as_json = canonical(backend.to_str())
    own = directory / facts.TOKENIZER
    outputs = stock_tokenizer(SAMPLES[0])
    if unknown := set(outputs) - set(OUTPUTS):
        raise NoGraph(f"its tokenizer outputs {min(unknown)}, which the loaders of ONNX graphs do not support")
    found = TokenizerFacts(
        limit=int(tokenizer.limit) if is_limit(tokenizer.limit) else None,
        pads_left=tokenizer.pads_left,
        truncates_left=stock_tokenizer.truncation_side == "left",
        pad_id=tokenizer.pad_id,
        inputs=list(outputs),
        is_own=own.is_file() and canonical(own.read_text(encoding="utf-8")) == as_json,
        made_by=facts.installed_versions(),
    )
    if not found.is_own:
        (target / facts.TOKENIZER).write_text(as_json, encoding="utf-8")
    facts.write_facts(found, target)
    for length in (128, 12):
        tokens = FastTokens(own if found.is_own else target / facts.TOKENIZER, found, length)
        for text in SAMPLES:
            if tokens([text], length) != tokenizer([text], length):
                raise NoGraph(f"without transformers the text {text[:40]!r} has other tokens")
        for pair in pairwise(SAMPLES):
            if tokens([pair], length) != tokenizer([pair], length):
                raise NoGraph(f"without transformers the pair {pair[0][:40]!r} and {pair[1][:40]!r} has other tokens")


def write_graph(directory: Path, tokenizer: Tokenizer, target: Path) -> None:
    """Write the graph and its facts to `target`.

    Raises ModelReferenceError if the module cannot be exported, or if the graph gives other answers than the module.
    """
    weights, output = convert_dtype(directory, "float32"), read_output(directory)
    module, unexpected = stock.load_module_and_report(weights, "float32", output)
    model = stock.text_model(directory, tokenizer, module, {}, loaded_by="transformers")
    network = TorchNetwork(module, output)
    cases = _cases(model)
    expected = [network.forward(case) for case in cases]
    files = checkpoint.weights(weights)
    in_file = _match_file(module, MappedTensors(files), unexpected)
    if converts_weights := in_file is None:
        in_file = {name: name for name in module.state_dict()}
        write_weights(directory, target)
        files = [target / checkpoint.WEIGHTS]
    graph = _export_graph(module, network, max(cases, key=lambda case: case["input_ids"].shape))
    sources = _take_weights_out(graph, in_file)
    check_no_weights(graph, module)
    data = graph.SerializeToString()
    if len(data) > LARGEST:
        raise NoGraph(f"its graph holds {len(data) >> 20} MiB that are not in the checkpoint's file")
    _optimise(_turn_weights_into_inputs(graph, sources), target / facts.GRAPH)
    (target / facts.CONSTANTS).write_bytes(data)
    found = GraphFacts(
        inputs=[name for name in cases[0] if name in network.inputs],
        weights=sources,
        looked_up=sorted(in_file[name] for name in _tables(module) if name in in_file),
        labels=expected[0].shape[-1],
        limit=network.limit,
        pad_id=network.pad_id,
        pads=model.pads,
        pads_left=tokenizer.pads_left,
        embeddings=network.embeddings,
        converts_weights=converts_weights,
        output=output,
        made_by=facts.installed_versions(),
    )
    facts.write_facts(found, target)
    exported = BoundNetwork(new_session(target / facts.GRAPH), MappedArrays(files), found)
    compare(map(_real, expected, cases), (_real(_forward(exported, case), case) for case in cases))
    if converts_weights:
        files[0].unlink()  # the weights are this checkpoint's, but the graph is shared with similar ones


def _tables(module: Any) -> set[str]:
    """The names of the weights of which a forward reads one row for each token."""
    return {f"{name}.weight" for name, part in module.named_modules() if isinstance(part, torch.nn.Embedding)}


def write_weights(directory: Path, target: Path) -> None:
    """Write the module's tensors, as they are after loading, to `target`."""
    module = stock.load_module(convert_dtype(directory, "float32"), "float32", read_output(directory))
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in module.state_dict().items()}
    save_file(tensors, target / checkpoint.WEIGHTS, metadata={"format": "pt"})


def _cases(model: TextModel) -> list[Inputs]:
    """Inputs of several lengths and numbers of texts. If texts can be padded, the last input is padded."""
    short, long, over = SAMPLES[0], SAMPLES[1], SAMPLES[-2]
    together = [[short, long], [long, short, SAMPLES[6], long, SAMPLES[5]]] if model.pads else []
    return [part for texts in ([short], [long], [over], [long, long], *together) for part in model.inputs(texts)]


def _forward(network: BoundNetwork, case: Inputs) -> Floats:
    try:
        return network.forward(case)
    except RuntimeError as error:
        shape = " × ".join(map(str, case["input_ids"].shape))
        raise NoGraph(f"its exported graph cannot compute {shape} tokens: {error}") from error


def _real(output: Floats, case: Inputs) -> Floats:
    """The output as rows of numbers, without those of tokens that are padding."""
    if output.ndim == 2 or "attention_mask" not in case:
        return output.reshape(-1, output.shape[-1])
    return np.asarray(output[case["attention_mask"] > 0])


def compare(expected: Iterable[Floats], found: Iterable[Floats]) -> None:
    """Raise ModelReferenceError if numbers are further apart than rounding explains; see `DISTANCE`."""
    pairs = list(zip(expected, found, strict=True))
    every = np.concatenate([reference for reference, _ in pairs])
    tolerance = DISTANCE * float(np.ptp(every, axis=0).max()) + ROUNDING * max(1.0, float(np.abs(every).max()))
    for reference, logits in pairs:
        distance = float(np.abs(reference - logits).max()) if reference.shape == logits.shape else np.inf
        if not distance <= tolerance:
            raise ModelReferenceError(
                f"its exported graph gives other answers than the model: its numbers differ by {distance:.3g}"
            )


def _match_file(module: Any, tensors: MappedTensors, unexpected: list[str]) -> dict[str, str] | None:
    """The name in the checkpoint's file of each tensor of the module, by all of its names in the module.

    None if the module has a weight that the file does not contain bit for bit.
    """
    named = tensors_by_id(module)
    provided, leftover = match_tensors(named, set(module.state_dict()), tensors, set(unexpected))
    real = [tensor for identity, (tensor, _) in named.items() if identity not in provided]
    if leftover or any(isinstance(tensor, torch.nn.Parameter) for tensor in real):
        return None
    return {
        name: provided[identity] for identity, (_, names) in named.items() if identity in provided for name in names
    }


class _Wrapped(torch.nn.Module):
    """A module that takes its inputs by position, and returns only one output."""

    def __init__(self, network: TorchNetwork, module: Any, names: list[str]) -> None:
        super().__init__()
        self.module, self.names = module, names
        self.constants, self.output = network.constants, network.output

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        outputs = self.module(**dict(zip(self.names, inputs, strict=True)), **self.constants)
        output: torch.Tensor = getattr(outputs, self.output)
        return output.to(torch.float32)


def _export_graph(module: Any, network: TorchNetwork, example: Inputs) -> onnx.ModelProto:
    """The module as a graph, with its weights as constants. Raises NoGraph if it cannot be exported."""
    if hasattr(module, "set_attn_implementation"):
        module.set_attn_implementation("eager")  # runtimes optimise this one best
    names = list(example)
    # Copied, because the exporter makes one input of those that are the same tensor.
    tensors = tuple(torch.from_numpy(example[name].copy()) for name in names)
    auto = torch.export.Dim.AUTO
    shape = {0: auto, 1: auto} if tensors[0].shape[0] > 1 else {1: auto}
    try:
        with _quiet():
            program = torch.onnx.export(
                _Wrapped(network, module, names).eval(),
                tensors,
                dynamo=True,
                optimize=False,  # it would fold the weights, which become inputs later
                input_names=names,
                output_names=[network.output],
                dynamic_shapes=(tuple(shape for _ in names),),
            )
        assert program is not None
        return program.model_proto
    except Exception as error:  # the exporter raises exceptions of many kinds
        raise NoGraph(f"it cannot be exported: {_cause(error)}") from error


def is_shortage(error: BaseException | None) -> bool:
    """Whether an error, or one that caused it, is a lack of memory or disk, which is temporary."""
    while error is not None:
        if isinstance(error, MemoryError | CacheFull) or "allocate memory" in str(
            error
        ):  # Python's and NumPy's; PyTorch's
            return True
        error = error.__cause__
    return False


def _cause(error: BaseException) -> str:
    """The first line of the original error, which the exporter wraps in advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"


def _take_weights_out(graph: onnx.ModelProto, in_file: Mapping[str, str]) -> dict[str, str]:
    """Remove the data of each weight from the graph, and return the name of its tensor in the file.

    The weight's name, type and shape remain.
    """
    sources = {}
    for initializer in graph.graph.initializer:
        name = in_file.get(initializer.name.removeprefix("module."))
        if name is None:
            continue
        sources[initializer.name] = name
        nbytes = len(initializer.raw_data)
        initializer.ClearField("raw_data")
        initializer.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", "weights"), ("offset", "0"), ("length", str(nbytes))):
            initializer.external_data.add(key=key, value=value)
    del graph.graph.value_info[:]
    for node in graph.graph.node:
        del node.metadata_props[:]
        node.ClearField("doc_string")
    return sources


def check_no_weights(graph: onnx.ModelProto, module: Any) -> None:
    """Raise NoGraph if the graph still holds a weight of the module, perhaps under a name that the exporter gave it.

    Other checkpoints, which share the graph, would be computed with this weight.
    """
    held = {each.name: onnx.numpy_helper.to_array(each) for each in graph.graph.initializer if not each.external_data}
    for name, parameter in module.named_parameters():
        weight = parameter.detach().numpy()
        if any(weight.size > 1 and weight.shape == array.shape and (weight == array).all() for array in held.values()):
            raise NoGraph(f"its exported graph holds the weight {name}")


def _turn_weights_into_inputs(graph: onnx.ModelProto, sources: Mapping[str, str]) -> onnx.ModelProto:
    """A copy of the graph whose weights are inputs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    del copy.graph.initializer[:]
    for each in graph.graph.initializer:
        if each.name in sources:
            copy.graph.input.append(onnx.helper.make_tensor_value_info(each.name, each.data_type, each.dims))
        else:
            copy.graph.initializer.append(each)
    return copy


def _optimise(graph: onnx.ModelProto, target: Path) -> None:
    """Write the graph with those of ONNX Runtime's optimisations that are valid on every processor."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=PROVIDERS)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress logs, warnings and output: those of exporters do not help someone who converts a model."""
    disabled = logging.root.manager.disable
    logging.disable()
    output = io.StringIO()
    try:
        with warnings.catch_warnings(), redirect_stdout(output), redirect_stderr(output):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


if __name__ == "__main__":
    with _quiet():
        reason = ship(*map(Path, sys.argv[1:])) if len(sys.argv) > 2 else export(Path(sys.argv[1]))
    print(json.dumps({"error": reason}))
