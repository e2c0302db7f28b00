"""A checkpoint directory: which of its files belong to it, and what they hold. Read here without torch.

`files` is the one list: what is looked for, digested, fetched, converted, dropped from the page cache, and what every
cache of something made from a checkpoint is keyed by.
"""

from __future__ import annotations

import hashlib
import json
import re
from fnmatch import translate
from functools import lru_cache
from pathlib import Path

from ..errors import ModelReferenceError
from .cache import remembered
from .header import FLOATS, read_header
from .heads import read_config

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
SHARD = re.compile(r".+-\d+-of-\d+\.safetensors")
# What lies beside checkpoints and decides no answer: other weights, code, documentation, traces of the training.
# Tokenizers have files of any name (bpe.codes, prophetnet.tokenizer), so that these cannot be listed.
FOREIGN = (
    ".*", "*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "*.pt", "*.pth", "*.ckpt*",
    "*.h5", "*.hdf5", "*.msgpack", "*.msgpack.index.json", "*.ot", "*.onnx", "*.onnx_data", "*.onnx.data", "*.gguf",
    "*.ggml", "*.tflite", "*.mlmodel", "*.npz", "*.npy", "*.pkl", "*.pickle", "*.joblib", "*.zip", "*.tar", "*.gz",
    "*.py", "*.pyc", "*.ipynb", "*.sh", "*.md", "*.rst", "*.html", "*.pdf", "*.png", "*.jpg", "*.jpeg", "*.gif",
    "*.svg", "*.csv", "*.tsv", "*.parquet", "*.jsonl", "*.log", "*.lock", "*.partial", "license*", "notice*", "readme*",
    "requirements*.txt", "trainer_state.json", "all_results.json", "train_results.json", "eval_results.json",
    "test_results.json", "optimizer*", "scheduler*", "rng_state*", "events.out.*", "generation_config.json",
)  # fmt: skip
# Compiled here, before any process is forked: it takes longer than all else that a child does to find its files.
_foreign = re.compile("|".join(map(translate, FOREIGN)))


@lru_cache(4096)  # asked for each file at each load
def belongs(name: str) -> bool:
    """Whether a file of that name, directly in a checkpoint's directory, is a part of the checkpoint."""
    if name in (WEIGHTS, INDEX) or SHARD.fullmatch(name):
        return True
    return _foreign.match(name.lower()) is None


def files(directory: Path) -> list[Path]:
    """The checkpoint's files, by name: config, tokenizer, and the weights that are used. Links that lead nowhere are
    passed over. Raises ModelReferenceError when there are no weights.
    """
    used = set(weights(directory))
    return sorted(used | {path for path in described(directory) if path.name != INDEX or used != {directory / WEIGHTS}})


def described(directory: Path) -> list[Path]:
    """The checkpoint's files without its weights: config, tokenizer, and the index of weights that are split."""
    names = (path for path in directory.iterdir() if belongs(path.name) and path.suffix != ".safetensors")
    return sorted(path for path in names if path.is_file())


def check(directory: Path) -> None:
    """Raise ModelReferenceError, in a sentence, unless `directory` holds a checkpoint that loaders may read."""
    if not directory.is_dir():
        raise ModelReferenceError(f"There is no checkpoint directory {directory}.")
    if (directory / ADAPTER).is_file():
        where = "beside the weights" if (directory / CONFIG).is_file() else "and no model"
        raise ModelReferenceError(
            f"{directory} holds an adapter ({ADAPTER}) {where}. Merge it into its model (peft's merge_and_unload) and"
            f" save that, or remove {ADAPTER} if the model is meant without it."
        )
    if not (directory / CONFIG).is_file():
        raise ModelReferenceError(f"{directory} is no checkpoint: it has no {CONFIG}.")
    read_config(directory)
    weights(directory)


def weights(directory: Path) -> list[Path]:
    """The safetensors files, in order. Raises ModelReferenceError when there are none."""
    index = directory / INDEX
    if index.is_file() and not (directory / WEIGHTS).is_file():
        found = [directory / name for name in indexed(directory)]
    else:
        found = [directory / WEIGHTS]
    missing = [file.name for file in found if not file.is_file()]
    if missing:
        raise ModelReferenceError(
            f"{directory} has no {missing[0]}. Only safetensors are read, because other formats can run code;"
            " convert the checkpoint with model.save_pretrained()."
        )
    return found


def indexed(directory: Path) -> list[str]:
    """The names of the files that the index of weights lists. Raises ModelReferenceError for what is no index."""
    try:
        index = json.loads((directory / INDEX).read_text())
        names = sorted({str(Path(name)) for name in index["weight_map"].values()})
        if not names or any("/" in name for name in names) or "metadata" not in index:
            raise ValueError("it needs 'metadata', and a 'weight_map' of files beside it")
        return names
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelReferenceError(f"{directory / INDEX} is no index of safetensors files: {error!r}.") from error


def size(directory: Path, float_bytes: int) -> int:
    """Bytes of all tensors when floats take `float_bytes` each; other types keep theirs."""
    entries = [entry for file in weights(directory) for entry in read_header(file).values()]
    return sum(entry.numel * float_bytes if entry.dtype in FLOATS else entry.nbytes for entry in entries)


def identity(directory: Path) -> str:
    """A short text that changes when one of the checkpoint's files does.

    It is made of their names, inodes, sizes and times, so that it is cheap enough to ask at each load.
    """
    digest = hashlib.sha256()
    for file in files(directory):
        status = file.stat()
        times = f"{status.st_mtime_ns} {status.st_ctime_ns}"  # the first can be set by whoever writes
        digest.update(f"{file.name} {status.st_ino} {status.st_size} {times}\n".encode())
    return digest.hexdigest()[:24]


def sha256(directory: Path) -> str:
    """The digest of the checkpoint: of the names and contents of all its files."""
    digest = hashlib.sha256()
    for path in files(directory):
        with path.open("rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def known_sha256(directory: Path) -> str:
    """The same, read once for each state of the files: a digest of gigabytes takes seconds."""
    return remembered(f"sha256-{identity(directory)}", lambda: sha256(directory))
