"""A checkpoint in the dtype that a loader wants: converted once, into the cache, and mapped from there."""

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
from .cache import cache_directory, cached
from .checkpoint import identity
from .header import FLOATS, read_header
from .heads import read_config

log = logging.getLogger("residency")
Dtype = Literal["float32", "bfloat16"]
NAMES = {"float32": "F32", "bfloat16": "BF16"}
FORMAT = 1  # part of the name in the cache; raise it when the files change
WIDENED = {"F64", "F32", "F16", "BF16"}  # what NumPy makes float32 of
BYTES = {"float32": 4, "bfloat16": 2}


@cache
def computable(dtype: Dtype) -> Dtype:
    """`dtype`, or float32, with a warning, where the processor would have to emulate it."""
    if dtype == "bfloat16" and not _computes_bfloat16():
        log.warning("This processor has no bfloat16 instructions, which makes it slower than float32; using float32.")
        return "float32"
    return dtype


def _computes_bfloat16() -> bool:
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return False
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def converted(directory: Path, dtype: str) -> Path:
    """Where in the cache the copy of `directory` in `dtype` is, if it was needed."""
    return cache_directory() / f"{dtype}-{identity(directory)}-v{FORMAT}"


def in_dtype(directory: Path, dtype: Dtype) -> Path:
    """`directory`, or a copy of it in the cache whose floating-point tensors are all of `dtype`.

    Where no copy can be made, `directory`, with a warning: its tensors are then converted at each load.
    """
    files = checkpoint.weights(directory)
    present = {entry.dtype for file in files for entry in read_header(file).values()}
    if present & FLOATS <= {NAMES[dtype]}:
        return directory
    nbytes = checkpoint.size(directory, BYTES[dtype])
    name = converted(directory, dtype).name
    try:
        return cached(name, nbytes, lambda target: _convert(directory, files, dtype, target))
    except ModelReferenceError as error:
        warn_once(f"{directory} is converted to {dtype} at each load, which takes longer: {error}")
        return directory


@cache
def warn_once(sentence: str) -> None:
    log.warning("%s", sentence)


def _convert(directory: Path, files: list[Path], dtype: Dtype, target: Path) -> None:
    for file in files:
        if dtype == "float32" and {entry.dtype for entry in read_header(file).values()} & FLOATS <= WIDENED:
            _widen(file, target / file.name)
        else:
            _cast(file, dtype, target / file.name)
    for file in checkpoint.described(directory):
        shutil.copyfile(file, target / file.name)
    config = read_config(directory) | {"dtype": dtype}
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def _widen(file: Path, target: Path) -> None:
    """Floats as float32, without torch, which a server may not have."""
    from safetensors.numpy import save_file

    from .arrays import MappedArrays

    arrays = MappedArrays([file])
    save_file(
        {name: as_float32(arrays[name], entry.dtype) for name, entry in read_header(file).items()},
        target,
        {"format": "pt"},
    )


def as_float32(array: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Floats of the type `dtype` as float32, bfloat16 being given as its bits; integers as they are."""
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
