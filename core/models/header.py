"""The header of a safetensors file, validated before a byte of its data is mapped.

Format: 8 bytes little-endian length, that many bytes of JSON, then the tensors' bytes without gaps.
https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ModelReferenceError

MAX_HEADER = 100_000_000  # bytes, as the reference implementation has it
BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
FLOATS = {dtype for dtype in BYTES if dtype.startswith(("F", "BF"))}


class Entry(NamedTuple):
    """Where one tensor stands: `start` is its first byte's place in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


def read_header(file: Path) -> dict[str, Entry]:
    """Every tensor of the file by name. Raises ModelReferenceError for a file that is not whole.

    What a mapping would only show as a SIGBUS or as another tensor's numbers is refused here: a
    truncated file, a header that is too long or is no JSON, tensors that overlap or leave gaps.
    """
    try:
        with file.open("rb") as stream:
            total = stream.seek(0, 2)
            stream.seek(0)
            length = int.from_bytes(stream.read(8), "little")
            if total < 8 or length > min(MAX_HEADER, total - 8):
                raise ValueError(f"its header is said to take {length} bytes of {total}")
            entries = json.loads(stream.read(length))
        return _check(entries, data=8 + length, total=total)
    except OSError as error:
        raise ModelReferenceError(f"{file} cannot be read: {error.strerror}.") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ModelReferenceError(
            f"{file} is no whole safetensors file: {error}. Download or save the checkpoint again."
        ) from error


def _check(entries: Any, *, data: int, total: int) -> dict[str, Entry]:
    if not isinstance(entries, dict):
        raise ValueError("its header is no mapping")
    entries.pop("__metadata__", None)
    found = {name: (entry["data_offsets"], entry["dtype"], entry["shape"]) for name, entry in entries.items()}
    end = 0
    result = {}
    for name, ((start, stop), dtype, shape) in sorted(found.items(), key=lambda item: (item[1][0][0], item[1][0][1])):
        if dtype not in BYTES:
            raise ValueError(f"tensor '{name}' has the unknown type {dtype!r}")
        if not all(isinstance(size, int) and size >= 0 for size in (start, stop, *shape)):
            raise ValueError(f"tensor '{name}' has sizes that are no whole numbers")
        if start != end:
            raise ValueError(f"tensor '{name}' {'overlaps the one before it' if start < end else 'leaves a gap'}")
        if stop - start != math.prod(shape) * BYTES[dtype]:
            raise ValueError(f"tensor '{name}' of shape {shape} does not take {stop - start} bytes")
        end = stop
        result[name] = Entry(dtype, tuple(shape), data + start)
    if data + end != total:
        raise ValueError(f"its tensors end at byte {data + end} of {total}")
    return result
