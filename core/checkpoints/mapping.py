"""A checkpoint's tensors as torch views of its mapped files. Nothing is read until it is used."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Collection
from math import prod
from pathlib import Path
from threading import Event
from typing import Any

import torch

from .header import BITS, Entry, read_header
from .read_ahead import read_ahead

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


class Unmappable(Exception):
    """A complete checkpoint that cannot be restored from its mapped files, so that transformers has to load it."""


# On other systems MADV_DONTNEED does not free the pages at once.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class MappedTensors:
    """All tensors of some safetensors files by name, private and copy-on-write.

    The mapping exists as long as any of its tensors.
    """

    def __init__(self, files: list[Path]) -> None:
        """Raises ModelReferenceError for an incomplete file, before anything is mapped, and Unmappable."""
        self._headers = {file: read_header(file) for file in files}
        self.entries: dict[str, Entry] = {n: entry for header in self._headers.values() for n, entry in header.items()}
        self._base: dict[str, Any] = {}  # by tensor name: the whole file as one tensor of the same dtype
        self._storages: list[Any] = []
        self._discarded = Event()
        for file, header in self._headers.items():
            self._map(file, header)

    def _map(self, file: Path, header: dict[str, Entry]) -> None:
        for name, entry in header.items():
            if entry.dtype not in DTYPES:
                raise Unmappable(f"tensor '{name}' is of the type {entry.dtype}")
            if entry.start % (BITS[entry.dtype] // 8):
                raise Unmappable(f"tensor '{name}' begins at byte {entry.start}, which is not aligned")
        nbytes = file.stat().st_size
        try:
            storage = torch.UntypedStorage.from_file(str(file), False, nbytes)
        except RuntimeError as error:  # the file system cannot map files, or the system allows no more mappings
            raise Unmappable(f"{file.name} cannot be mapped ({str(error).partition(chr(10))[0]})") from error
        self._storages.append(storage)
        bases: dict[str, torch.Tensor] = {}
        for name, entry in header.items():
            width = BITS[entry.dtype] // 8
            if entry.dtype not in bases:
                whole: Any = torch.empty(0, dtype=DTYPES[entry.dtype])
                bases[entry.dtype] = whole.set_(storage, 0, (nbytes // width,), (1,))
            self._base[name] = bases[entry.dtype]

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
            for storage in self._storages:
                _libc.madvise(
                    ctypes.c_void_p(storage.data_ptr()), ctypes.c_size_t(storage.nbytes()), mmap.MADV_DONTNEED
                )

    def __getitem__(self, name: str) -> torch.Tensor:
        entry = self.entries[name]
        strides = tuple(prod(entry.shape[i + 1 :]) for i in range(len(entry.shape)))
        view: torch.Tensor = self._base[name].as_strided(entry.shape, strides, 8 * entry.start // BITS[entry.dtype])
        return view
