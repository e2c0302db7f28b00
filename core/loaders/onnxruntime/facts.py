"""What is known of a converted checkpoint, and where in the cache it lies. Read here without torch.

A conversion has two parts, each shared by all checkpoints that it holds for: the graph of an architecture, whose
weights are inputs, and a tokenizer. A checkpoint is converted where both are there.
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
from ...checkpoints.heads import read_config
from ...errors import ModelReferenceError

Facts = TypeVar("Facts", "GraphFacts", "TokenizerFacts")
FORMAT = 2  # part of the names in the cache; raise it when the files change
FACTS = "facts.json"
KEY = "key"  # beside what ships
GRAPH = "graph.onnx"  # its weights are inputs
CONSTANTS = "constants.onnx"  # its weights are constants, which lie elsewhere
TOKENIZER = "tokenizer.json"
SHIPPED = (
    Path(__file__).parents[2] / "checkpoints" / "embedded" / "onnx"
)  # what the classifier that ships here is converted to
MADE_BY = ("torch", "transformers", "tokenizers", "onnx", "onnxscript", "onnxruntime")
# What a config says that changes no graph.
BESIDE_THE_GRAPH = {
    "id2label", "label2id", "_name_or_path", "name_or_path", "transformers_version", "torch_dtype", "dtype",
    "finetuning_task", "problem_type", "tokenizer_class", "_num_labels",
}  # fmt: skip


class CannotConvert(ModelReferenceError):
    """A checkpoint that has no graph: another loader has to load it."""


@dataclass(frozen=True)
class GraphFacts:
    """What a forward over the graph needs to know of the module that it was exported from."""

    inputs: list[str]  # of a tokenizer's outputs those that it takes, in order
    weights: dict[str, str]  # the checkpoint's tensor for each other input
    looked_up: list[str]  # those tensors of which a forward reads a row for each token
    labels: int  # logits for each text
    limit: int | None  # tokens of a text
    pad_id: int | None
    pads: bool  # whether shorter texts can be filled up beside longer ones, at the side that `pads_left` says
    pads_left: bool
    embeddings: int | None
    converts_weights: bool  # whether the module has other tensors than the file, so that a copy lies in the cache
    made_by: dict[str, str] = field(default_factory=dict)  # the versions of what made it


@dataclass(frozen=True)
class TokenizerFacts:
    """What `tokenizer.json` does not say, or says otherwise than transformers."""

    limit: int | None  # tokens of a text; None where the tokenizer has no limit of its own
    pads_left: bool
    truncates_left: bool
    pad_id: int | None
    inputs: list[str]  # what it makes of a text
    is_own: bool  # whether the checkpoint's own `tokenizer.json` gives the same tokens; else one lies beside
    made_by: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Part(Generic[Facts]):
    """One part of a conversion: its facts, and the directory that they stand in."""

    directory: Path
    facts: Facts


def graph_key(directory: Path) -> str:
    """Changes with what a graph is made from: the config, and the names, types and shapes of the weights."""
    config = {key: value for key, value in read_config(directory).items() if key not in BESIDE_THE_GRAPH}
    layout = {}
    for file in checkpoint.weights(directory):
        for name, entry in read_header(file).items():
            # All floats are computed in one type, whatever they are stored in.
            layout[name] = "F32" if entry.dtype in FLOATS else entry.dtype, entry.shape
    return digest(json.dumps([FORMAT, config, sorted(layout.items())], sort_keys=True))


def tokenizer_key(directory: Path) -> str:
    """Changes with what a tokenizer is made from: its files, and what config.json says of it."""
    files = [path for path in checkpoint.described(directory) if path.name not in (checkpoint.CONFIG, checkpoint.INDEX)]
    contents = [(path.name, _digest_of_file(path, *_state(path))) for path in files]
    config = read_config(directory)
    return digest(json.dumps([FORMAT, contents, config.get("model_type"), config.get("tokenizer_class")]))


def unconverted(directory: Path) -> tuple[str, str]:
    """Under which names it is remembered why a checkpoint cannot be converted: with all that are like it, or alone."""
    alike = f"unconverted-{name_of('graph', graph_key(directory))}-{tokenizer_key(directory)}"
    return alike, f"{alike}-{checkpoint.identity(directory)}"


def find_graph(directory: Path) -> Part[GraphFacts] | None:
    """The graph that was made for checkpoints of this kind, here or for the classifier that ships."""
    return next(_found("graph", graph_key(directory), GraphFacts), None)


def find_tokenizer(directory: Path) -> Part[TokenizerFacts] | None:
    return next(_found("tokenizer", tokenizer_key(directory), TokenizerFacts), None)


def name_of(kind: Literal["graph", "tokenizer", "weights"], key: str) -> str:
    """In the cache's folder `onnx`; of what is made by the versions that are installed."""
    return f"{kind}-{key}-{digest(json.dumps(installed()), 8)}"


@cache
def installed() -> dict[str, str]:
    """The versions of what conversions are made by, as far as they are installed."""
    return {name: found for name in MADE_BY if (found := _version(name))}


def write(facts: GraphFacts | TokenizerFacts, directory: Path) -> None:
    (directory / FACTS).write_text(json.dumps(asdict(facts), indent=1) + "\n", encoding="utf-8")


def _found(kind: str, key: str, cls: type[Facts]) -> Iterator[Part[Facts]]:
    """Where torch is missing, what any versions have made; where it is there, what these have."""
    shipped = SHIPPED / kind
    if _shipped_key(kind) == key:
        yield Part(shipped, _read(cls, shipped))
    for directory in sorted(folder().glob(f"{kind}-{key}-*")):
        if directory.suffix:  # a lock, or what a process that was killed has left
            continue
        try:
            facts = _read(cls, directory)
        except (OSError, ValueError, TypeError):  # the machine failed while it was written: it is made anew
            shutil.rmtree(directory, ignore_errors=True)
            continue
        if all(facts.made_by.get(name) == found for name, found in installed().items()):
            yield Part(directory, facts)


def folder() -> Path:
    """Where graphs and tokenizers are kept. Raises CannotConvert for a user who has no cache, or one that others can
    write to: whoever replaces a graph decides what is answered.
    """
    try:
        found = cache_directory() / "onnx"
    except ModelReferenceError as error:
        raise CannotConvert(str(error).rstrip(".")) from error
    for each in (found.parent, found):
        if not each.is_dir():
            continue
        status = each.stat()
        if status.st_uid not in (os.geteuid(), 0) or status.st_mode & 0o022:
            raise CannotConvert(
                f"others can write to the cache {each}, so that no graph is taken from it; give it to this user alone"
                f" (chown, chmod 700), or point RESIDENCY_CACHE at another folder"
            )
    return found


@cache
def _shipped_key(kind: str) -> str:
    file = SHIPPED / kind / KEY
    return file.read_text().strip() if file.is_file() else ""


def _read(cls: type[Facts], directory: Path) -> Facts:
    """Raises OSError, ValueError, or TypeError."""
    file = directory / FACTS
    return cls(**_parsed(file, *_state(file)))


@lru_cache(512)
def _parsed(file: Path, *state: int) -> dict[str, Any]:
    """Of a file in that state; all checkpoints that it holds for share its lists and mappings."""
    parsed: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return parsed


def _state(path: Path) -> tuple[int, int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@lru_cache(4096)
def _digest_of_file(path: Path, *state: int) -> str:
    """Of a file in that state; read once for it."""
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
