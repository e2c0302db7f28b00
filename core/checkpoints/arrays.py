"""A checkpoint's tensors as NumPy arrays over its mapped files. Nothing is read until it is used. Needs no torch."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Collection
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelReferenceError
from .header import BITS, read_header
from .read_ahead import read_ahead

TYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16, "I64": np.int64, "I32": np.int32,
    "I16": np.int16, "I8": np.int8, "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8,
    "BOOL": np.bool_,
}  # fmt: skip
# On other systems MADV_DONTNEED does not free the pages at once.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class CannotMap(ModelReferenceError):
    """A complete file whose tensors cannot be used in place."""


class MappedArrays:
    """All tensors of some safetensors files by name, read-only. bfloat16 is given as uint16, its bits."""

    def __init__(self, files: list[Path]) -> None:
        """Raises ModelReferenceError for an incomplete file, before anything is mapped, and CannotMap."""
        self._headers = {file: read_header(file) for file in files}
        self._maps: list[mmap.mmap] = []
        self._arrays: dict[str, NDArray[Any]] = {}
        self._discarded = Event()
        for file, header in self._headers.items():
            if not header:
                continue
            try:
                with file.open("rb") as stream:
                    mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            except OSError as error:
                raise CannotMap(f"{file.name} cannot be mapped ({error.strerror})") from error
            self._maps.append(mapped)
            for name, entry in header.items():
                if entry.dtype not in TYPES:
                    raise CannotMap(f"tensor '{name}' is of the type {entry.dtype}")
                if entry.start % (BITS[entry.dtype] // 8):
                    raise CannotMap(f"tensor '{name}' begins at byte {entry.start}, which is not aligned")
                array: NDArray[Any] = np.frombuffer(mapped, TYPES[entry.dtype], entry.numel, entry.start)
                self._arrays[name] = array.reshape(entry.shape)

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._arrays[name]

    def read_ahead(self, names: Collection[str]) -> None:
        """Read the tensors that are not in the page cache in the background, until `discard`."""
        read_ahead(self._headers, names, self._discarded)

    def discard(self) -> None:
        """Drop the pages of the mappings. A tensor that is still used is read from the file again.

        Unmapping would do this too, but it holds the interpreter's lock for milliseconds, in which the process sends no
        answer. ctypes releases the lock.
        """
        self._discarded.set()
        if _libc is not None:
            for mapped in self._maps:
                # Not `.ctypes.data`, which would create a reference cycle.
                start = np.frombuffer(mapped, np.uint8).__array_interface__["data"][0]
                _libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(len(mapped)), mmap.MADV_DONTNEED)
