"""The files of a checkpoint directory, their sizes and digests. Needs no torch.

`files` is the only list of a checkpoint's files. Downloads, digests, conversions, cache keys and the page cache use it.
"""

from __future__ import annotations

import hashlib
import json
import re
from fnmatch import translate
from functools import lru_cache
from pathlib import Path

from ..errors import ModelReferenceError
from ..tasks.pooling import module_configs
from .cache import recall_or_make
from .header import FLOATS, read_header
from .heads import read_config

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
SHARD = re.compile(r".+-\d+-of-\d+\.safetensors")
# Files beside a checkpoint that affect no answer: other weights, code, documentation, records of the training. The
# list names what to leave out, because tokenizers have files of any name (bpe.codes, prophetnet.tokenizer).
FOREIGN = (
    ".*", "*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "*.pt", "*.pth", "*.ckpt*",
    "*.h5", "*.hdf5", "*.msgpack", "*.msgpack.index.json", "*.ot", "*.onnx", "*.onnx_data", "*.onnx.data", "*.gguf",
    "*.ggml", "*.tflite", "*.mlmodel", "*.npz", "*.npy", "*.pkl", "*.pickle", "*.joblib", "*.zip", "*.tar", "*.gz",
    "*.py", "*.pyc", "*.ipynb", "*.sh", "*.md", "*.rst", "*.html", "*.pdf", "*.png", "*.jpg", "*.jpeg", "*.gif",
    "*.svg", "*.csv", "*.tsv", "*.parquet", "*.jsonl", "*.log", "*.lock", "*.partial", "license*", "notice*", "readme*",
    "requirements*.txt", "trainer_state.json", "all_results.json", "train_results.json", "eval_results.json",
    "test_results.json", "optimizer*", "scheduler*", "rng_state*", "events.out.*", "generation_config.json",
)  # fmt: skip
# Compiled here, before any process is forked: in a child it would take longer than all else of finding the files.
_foreign = re.compile("|".join(map(translate, FOREIGN)))


@lru_cache(4096)  # called for each file at each load
def is_part(name: str) -> bool:
    """Whether a file of this name, directly in a checkpoint's directory, is part of the checkpoint."""
    if name in (WEIGHTS, INDEX) or SHARD.fullmatch(name):
        return True
    return _foreign.match(name.lower()) is None


def files(directory: Path) -> list[Path]:
    """The checkpoint's files, sorted by name: config, tokenizer, and the weights that are used.

    Broken links are skipped. Raises ModelReferenceError if there are no weights.
    """
    used = set(weights(directory))
    others = files_without_weights(directory)
    return sorted(used | {path for path in others if path.name != INDEX or used != {directory / WEIGHTS}})


def files_without_weights(directory: Path) -> list[Path]:
    """The checkpoint's files except its weights: configs, tokenizer, and the index of sharded weights.

    The config of a module that `modules.json` names is in a folder of its own; all others are directly in `directory`.
    """
    names = (path for path in directory.iterdir() if is_part(path.name) and path.suffix != ".safetensors")
    configs = (directory / name for name in module_configs(directory))
    return sorted(path for path in (*names, *configs) if path.is_file())


def check(directory: Path) -> None:
    """Raise ModelReferenceError unless `directory` holds a checkpoint that loaders can read."""
    if not directory.is_dir():
        raise ModelReferenceError(f"There is no checkpoint directory {directory}.")
    if (directory / ADAPTER).is_file():
        where = "beside the weights" if (directory / CONFIG).is_file() else "and no model"
        raise ModelReferenceError(
            f"{directory} holds an adapter ({ADAPTER}) {where}. Merge it into its model (peft's merge_and_unload) and"
            f" save the result, or remove {ADAPTER} to use the model without the adapter."
        )
    if not (directory / CONFIG).is_file():
        raise ModelReferenceError(f"{directory} is not a checkpoint: it has no {CONFIG}.")
    read_config(directory)
    weights(directory)


def weights(directory: Path) -> list[Path]:
    """The safetensors files, in order. Raises ModelReferenceError if one is missing."""
    index = directory / INDEX
    if index.is_file() and not (directory / WEIGHTS).is_file():
        paths = [directory / name for name in indexed_files(directory)]
    else:
        paths = [directory / WEIGHTS]
    missing = [file.name for file in paths if not file.is_file()]
    if missing:
        raise ModelReferenceError(
            f"{directory} has no {missing[0]}. Only safetensors files are read, because other formats can run code;"
            " convert the checkpoint with model.save_pretrained()."
        )
    return paths


def indexed_files(directory: Path) -> list[str]:
    """The names of the files that the index of weights lists. Raises ModelReferenceError if it is not an index."""
    try:
        index = json.loads((directory / INDEX).read_text())
        names = sorted({str(Path(name)) for name in index["weight_map"].values()})
        if not names or any("/" in name for name in names) or "metadata" not in index:
            raise ValueError("it needs 'metadata', and a 'weight_map' of files beside it")
        return names
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelReferenceError(f"{directory / INDEX} is not an index of safetensors files: {error!r}.") from error


def size(directory: Path, float_bytes: int) -> int:
    """The bytes of all tensors if each float takes `float_bytes`; other types keep their size."""
    entries = [entry for file in weights(directory) for entry in read_header(file).values()]
    return sum(entry.numel * float_bytes if entry.dtype in FLOATS else entry.nbytes for entry in entries)


def identity(directory: Path) -> str:
    """A short text that changes when one of the checkpoint's files changes.

    It depends on their names, inodes, sizes and times only, so it is cheap enough to compute at each load.
    """
    digest = hashlib.sha256()
    for file in files(directory):
        status = file.stat()
        times = f"{status.st_mtime_ns} {status.st_ctime_ns}"  # a writer can set st_mtime, but not st_ctime
        digest.update(f"{file.relative_to(directory)} {status.st_ino} {status.st_size} {times}\n".encode())
    return digest.hexdigest()[:24]


def sha256(directory: Path) -> str:
    """The digest of the names and contents of all of the checkpoint's files."""
    digest = hashlib.sha256()
    for path in files(directory):
        with path.open("rb") as file:
            digest.update(f"{path.relative_to(directory)} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def cached_sha256(directory: Path) -> str:
    """The result of `sha256`, computed once for each state of the files: for gigabytes it takes seconds."""
    return recall_or_make(f"sha256-{identity(directory)}", lambda: sha256(directory))
