"""The facts of a converted checkpoint, and the place of its parts in the cache. Needs no torch.

A conversion has two parts: the graph of an architecture, whose weights are inputs, and a tokenizer. Checkpoints of the
same kind share them. A checkpoint is converted if both parts exist.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from ...checkpoints import checkpoint
from ...checkpoints.cache import cache_directory
from ...checkpoints.header import FLOATS, read_header
from ...checkpoints.heads import Output, read_config, read_output
from ...errors import ModelReferenceError

Facts = TypeVar("Facts", "GraphFacts", "TokenizerFacts")
FORMAT = 2  # part of the names in the cache; raise it when the files change
FACTS = "facts.json"
KEY = "key"  # the file with the key of a part that ships
GRAPH = "graph.onnx"  # whose weights are inputs
CONSTANTS = "constants.onnx"  # whose weights are constants, which are stored elsewhere
TOKENIZER = "tokenizer.json"
SHIPPED = (
    Path(__file__).parents[2] / "checkpoints" / "embedded" / "onnx"
)  # what the classifier that ships here is converted to
MADE_BY = ("torch", "transformers", "tokenizers", "onnx", "onnxscript", "onnxruntime")
# The keys of a config that do not affect the graph.
BESIDE_THE_GRAPH = {
    "id2label", "label2id", "_name_or_path", "name_or_path", "transformers_version", "torch_dtype", "dtype",
    "finetuning_task", "problem_type", "tokenizer_class", "_num_labels", "sentence_transformers",
    "sbert_ce_default_activation_function",
}  # fmt: skip


class CannotConvert(ModelReferenceError):
    """A checkpoint that cannot be converted, so that another loader has to load it."""


@dataclass(frozen=True)
class GraphFacts:
    """Facts about the exported module that a forward over the graph needs."""

    inputs: list[str]  # the outputs of a tokenizer that it takes, in order
    weights: dict[str, str]  # the checkpoint's tensor for each other input
    looked_up: list[str]  # those of these tensors of which a forward reads one row for each token
    labels: int  # logits for each text, or numbers for each token
    limit: int | None  # tokens of a text
    pad_id: int | None
    pads: bool  # whether shorter texts can be padded, on the side that `pads_left` says
    pads_left: bool
    embeddings: int | None
    converts_weights: bool  # whether the module's tensors differ from the file's, so that the cache holds a copy
    output: Output = "logits"
    made_by: dict[str, str] = field(default_factory=dict)  # the versions of the packages that made it


@dataclass(frozen=True)
class TokenizerFacts:
    """Facts about a tokenizer that `tokenizer.json` does not say, or says differently from transformers."""

    limit: int | None  # tokens of a text; None if the tokenizer has no limit
    pads_left: bool
    truncates_left: bool
    pad_id: int | None
    inputs: list[str]  # its outputs, which are a network's inputs
    is_own: bool  # whether the checkpoint's own `tokenizer.json` gives the same tokens; else one is beside the facts
    made_by: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Part(Generic[Facts]):
    """One part of a conversion: its facts, and its directory."""

    directory: Path
    facts: Facts


def graph_key(directory: Path) -> str:
    """A digest of what a graph depends on: the config, the names, types and shapes of the weights, and its output."""
    config = {key: value for key, value in read_config(directory).items() if key not in BESIDE_THE_GRAPH}
    layout = {}
    for file in checkpoint.weights(directory):
        for name, entry in read_header(file).items():
            # All floats are computed as float32, so the type that they are stored in does not matter.
            layout[name] = "F32" if entry.dtype in FLOATS else entry.dtype, entry.shape
    output = read_output(directory)
    others = [] if output == "logits" else [output]
    return digest(json.dumps([FORMAT, config, sorted(layout.items()), *others], sort_keys=True))


def tokenizer_key(directory: Path) -> str:
    """A digest of what a tokenizer depends on: its files, and what config.json says about it."""
    files = [
        path
        for path in checkpoint.files_without_weights(directory)
        if path.name not in (checkpoint.CONFIG, checkpoint.INDEX)
    ]
    contents = [(path.name, _digest_of_file(path, *_state(path))) for path in files]
    config = read_config(directory)
    return digest(json.dumps([FORMAT, contents, config.get("model_type"), config.get("tokenizer_class")]))


def failure_names(directory: Path) -> tuple[str, str]:
    """The names under which the cache keeps the reason why a checkpoint cannot be converted.

    The first holds for all similar checkpoints, the second for this one alone.
    """
    alike = f"unconverted-{cache_name('graph', graph_key(directory))}-{tokenizer_key(directory)}"
    return alike, f"{alike}-{checkpoint.identity(directory)}"


def find_graph(directory: Path) -> Part[GraphFacts] | None:
    """The graph for checkpoints of this kind, from the cache or from what ships; None if there is none."""
    return next(_find("graph", graph_key(directory), GraphFacts), None)


def find_tokenizer(directory: Path) -> Part[TokenizerFacts] | None:
    """The tokenizer for checkpoints of this kind, from the cache or from what ships; None if there is none."""
    return next(_find("tokenizer", tokenizer_key(directory), TokenizerFacts), None)


def cache_name(kind: Literal["graph", "tokenizer", "weights"], key: str) -> str:
    """The name of a part in the cache's folder `onnx`, if the installed versions make it."""
    return f"{kind}-{key}-{digest(json.dumps(installed_versions()), 8)}"


@cache
def installed_versions() -> dict[str, str]:
    """The versions of the installed packages that affect conversions."""
    return {name: found for name in MADE_BY if (found := _version(name))}


def write_facts(facts: GraphFacts | TokenizerFacts, directory: Path) -> None:
    """Write the facts to `directory`."""
    (directory / FACTS).write_text(json.dumps(asdict(facts), indent=1) + "\n", encoding="utf-8")


def _find(kind: str, key: str, cls: type[Facts]) -> Iterator[Part[Facts]]:
    """The parts with this key that the installed versions made; of a package that is not installed, any version."""
    shipped = SHIPPED / kind
    if _shipped_key(kind) == key:
        yield Part(shipped, _read(cls, shipped))
    for directory in sorted(cache_folder().glob(f"{kind}-{key}-*")):
        if directory.suffix:  # a lock, or a partial directory that a killed process left behind
            continue
        try:
            facts = _read(cls, directory)
        except (OSError, ValueError, TypeError):  # the machine crashed during writing: remove it, to be made again
            shutil.rmtree(directory, ignore_errors=True)
            continue
        if all(facts.made_by.get(name) == found for name, found in installed_versions().items()):
            yield Part(directory, facts)


def cache_folder() -> Path:
    """The folder of graphs and tokenizers in the cache.

    Raises CannotConvert if the user has no cache, or if others can write to it: they could replace a graph, and with it
    the answers.
    """
    try:
        graphs = cache_directory() / "onnx"
    except ModelReferenceError as error:
        raise CannotConvert(str(error).rstrip(".")) from error
    for directory in (graphs.parent, graphs):
        if not directory.is_dir():
            continue
        status = directory.stat()
        if status.st_uid not in (os.geteuid(), 0) or status.st_mode & 0o022:
            raise CannotConvert(
                f"others can write to the cache {directory}, so no graph is taken from it; make this user its owner"
                f" and only writer (chown, chmod 700), or set RESIDENCY_CACHE to another folder"
            )
    return graphs


@cache
def _shipped_key(kind: str) -> str:
    file = SHIPPED / kind / KEY
    return file.read_text().strip() if file.is_file() else ""


def _read(cls: type[Facts], directory: Path) -> Facts:
    """The facts in `directory`. Raises OSError, ValueError, or TypeError."""
    file = directory / FACTS
    return cls(**_parsed(file, *_state(file)))


@lru_cache(512)
def _parsed(file: Path, *state: int) -> dict[str, Any]:
    """The parsed file in that state. All checkpoints of its kind share its lists and mappings."""
    parsed: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return parsed


def _state(path: Path) -> tuple[int, int, int, int]:
    """A value that changes when the file changes."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@lru_cache(4096)
def _digest_of_file(path: Path, *state: int) -> str:
    """The digest of the file in that state, for which it is read once."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(text: str, length: int = 24) -> str:
    """A short text that changes with `text`."""
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
