"""Copies of checkpoints in other dtypes: written once to the cache, and mapped from there."""

from __future__ import annotations

import json
import logging
import shutil
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelReferenceError
from . import checkpoint
from .cache import cache_directory, write_once
from .checkpoint import identity
from .header import FLOATS, read_header
from .heads import read_config

log = logging.getLogger("residency")
Dtype = Literal["float32", "bfloat16"]
DTYPE = "`bfloat16` if the processor computes in it. The checkpoint is converted once, into the cache."
NAMES = {"float32": "F32", "bfloat16": "BF16"}
FORMAT = 1  # part of the name in the cache; raise it when the files change
WIDENED = {"F64", "F32", "F16", "BF16"}  # types that NumPy alone converts to float32
BYTES = {"float32": 4, "bfloat16": 2}


@cache
def supported_dtype(dtype: Dtype) -> Dtype:
    """`dtype`, or float32, with a warning, if the processor would have to emulate `dtype`."""
    if dtype == "bfloat16" and not _has_bfloat16():
        log.warning("This processor has no bfloat16 instructions, so bfloat16 is slower than float32; using float32.")
        return "float32"
    return dtype


def _has_bfloat16() -> bool:
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return False
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def converted_directory(directory: Path, dtype: str) -> Path:
    """The directory in the cache for the copy of the checkpoint in `dtype`. It exists only if a copy was needed."""
    return cache_directory() / f"{dtype}-{identity(directory)}-v{FORMAT}"


def convert_dtype(directory: Path, dtype: Dtype) -> Path:
    """A directory with the checkpoint in `dtype`: `directory` itself, or else a copy in the cache, written if needed.

    If no copy can be written, logs a warning and returns `directory`. Its tensors are then converted at each load.
    """
    files = checkpoint.weights(directory)
    present = {entry.dtype for file in files for entry in read_header(file).values()}
    if present & FLOATS <= {NAMES[dtype]}:
        return directory
    nbytes = checkpoint.size(directory, BYTES[dtype])
    name = converted_directory(directory, dtype).name
    try:
        return write_once(name, nbytes, lambda target: _convert(directory, files, dtype, target))
    except ModelReferenceError as error:
        warn_once(f"{directory} is converted to {dtype} at each load, which takes longer: {error}")
        return directory


@cache
def warn_once(sentence: str) -> None:
    """Log the warning, unless this process has logged it before."""
    log.warning("%s", sentence)


def _convert(directory: Path, files: list[Path], dtype: Dtype, target: Path) -> None:
    for file in files:
        if dtype == "float32" and {entry.dtype for entry in read_header(file).values()} & FLOATS <= WIDENED:
            _widen(file, target / file.name)
        else:
            _cast(file, dtype, target / file.name)
    for file in checkpoint.files_without_weights(directory):
        copy = target / file.relative_to(directory)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, copy)
    config = read_config(directory) | {"dtype": dtype}
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def _widen(file: Path, target: Path) -> None:
    """Write the file with its floats as float32. Needs no torch, which a server may not have."""
    from safetensors.numpy import save_file

    from .arrays import MappedArrays

    arrays = MappedArrays([file])
    save_file(
        {name: as_float32(arrays[name], entry.dtype) for name, entry in read_header(file).items()},
        target,
        {"format": "pt"},
    )


def as_float32(array: NDArray[Any], dtype: str) -> NDArray[Any]:
    """The array as float32 if `dtype`, its safetensors type, is a float; bfloat16 is given as its bits.

    Other types are returned unchanged.
    """
    if dtype == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32) if dtype in WIDENED else np.ascontiguousarray(array)


def _cast(file: Path, dtype: Dtype, target: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    wanted = getattr(torch, dtype)
    tensors = {
        name: tensor.to(wanted) if tensor.is_floating_point() else tensor for name, tensor in load_file(file).items()
    }
    save_file(tensors, target, metadata={"format": "pt"})
