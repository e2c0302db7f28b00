"""A checkpoint directory: config, safetensors, tokenizer. Read here without torch, from headers alone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from ..errors import ModelReferenceError
from .header import BYTES, FLOATS, read_header

INDEX = "model.safetensors.index.json"
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "spm.model")


def check(directory: Path) -> None:
    """Raise ModelReferenceError, in a sentence, unless `directory` holds all that a loader needs."""
    if not directory.is_dir():
        raise ModelReferenceError(f"There is no checkpoint directory {directory}.")
    if not (directory / "config.json").is_file():
        raise ModelReferenceError(f"{directory} is no checkpoint: it has no config.json.")
    if not any((directory / name).is_file() for name in TOKENIZERS):
        raise ModelReferenceError(
            f"{directory} has no tokenizer (tokenizer.json); save the tokenizer beside the model."
        )
    weights(directory)


def weights(directory: Path) -> list[Path]:
    """The safetensors files, in order. Raises ModelReferenceError when there are none."""
    index = directory / INDEX
    if index.is_file() and not (directory / "model.safetensors").is_file():
        try:
            names = sorted({Path(name).name for name in json.loads(index.read_text())["weight_map"].values()})
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ModelReferenceError(f"{index} is no index of safetensors files: {error!r}.") from error
        files = [directory / name for name in names]
    else:
        files = [directory / "model.safetensors"]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise ModelReferenceError(
            f"{directory} has no {missing[0]}. Only safetensors are read, because other formats can run code;"
            " convert the checkpoint with model.save_pretrained()."
        )
    return files


def size(directory: Path, float_bytes: int) -> int:
    """Bytes of all tensors when floats take `float_bytes` each; other types keep theirs."""
    entries = [entry for file in weights(directory) for entry in read_header(file).values()]
    return sum(entry.numel * (float_bytes if entry.dtype in FLOATS else BYTES[entry.dtype]) for entry in entries)


def sha256(directory: Path) -> str:
    """One digest over what decides the answers: the names and contents of config, tokenizer and weights."""
    digest = hashlib.sha256()
    names = {"config.json", "tokenizer_config.json", "special_tokens_map.json", *TOKENIZERS}
    files = [path for path in directory.iterdir() if path.name in names]
    for path in sorted(files + weights(directory)):
        with path.open("rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()
