"""The classifier that ships with Residency. Its float32 copy is written to the cache once."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from . import checkpoint
from .cache import write_once

SHIPPED = Path(__file__).with_name("embedded")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def embedded_directory() -> Path:
    """The directory of the embedded checkpoint in float32, which a load can map without converting it."""
    nbytes = 2 * (SHIPPED / "model.safetensors").stat().st_size
    return write_once(f"embedded-{shipped_sha256()[:12]}", nbytes, _widen)


@cache
def shipped_sha256() -> str:
    """The digest of the checkpoint that ships. Cached, because a server may have a thousand models made from it."""
    return checkpoint.sha256(SHIPPED)


def _widen(directory: Path) -> None:
    tensors = load_file(SHIPPED / "model.safetensors")
    wide = {name: tensor.astype(np.float32) for name, tensor in tensors.items()}
    save_file(wide, directory / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((SHIPPED / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"dtype": "float32"}, indent=2) + "\n")
    copy_tokenizer(directory)


def copy_tokenizer(directory: Path) -> None:
    """Copy the embedded checkpoint's tokenizer to `directory`."""
    for name in TOKENIZER_FILES:
        shutil.copyfile(SHIPPED / name, directory / name)
