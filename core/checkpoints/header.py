"""The header of a safetensors file, validated before a byte of its data is mapped.

The format: 8 bytes with the length of the JSON that follows, little-endian; the JSON; then the bytes of the tensors
without gaps. https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ModelReferenceError

MAX_HEADER = 100_000_000  # bytes, as in the reference implementation
BITS = {  # bits of an element by type
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "C64": 64,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
    "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8,
}  # fmt: skip
FLOATS = {dtype for dtype, bits in BITS.items() if dtype.startswith(("F", "BF")) and bits >= 8}
"""The types that can be converted to another dtype."""


class Entry(NamedTuple):
    """A tensor of a file: `start` is the offset of its first byte in the file, `nbytes` its length there."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    nbytes: int

    @property
    def numel(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


def read_header(file: Path) -> dict[str, Entry]:
    """All tensors of the file by name.

    Raises ModelReferenceError for a truncated file, for a header that is too long or not JSON, and for tensors that
    overlap or leave gaps. A mapping of such a file would raise SIGBUS or return the numbers of another tensor.
    """
    try:
        with file.open("rb") as stream:
            total = stream.seek(0, 2)
            stream.seek(0)
            length = int.from_bytes(stream.read(8), "little")
            if total < 8 or length > min(MAX_HEADER, total - 8):
                raise ValueError(f"its header claims {length} of the file's {total} bytes")
            entries = json.loads(stream.read(length))
        return _check(entries, data=8 + length, total=total)
    except OSError as error:
        raise ModelReferenceError(f"{file} cannot be read: {error.strerror}.") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ModelReferenceError(
            f"{file} is not a complete safetensors file: {error}. Download or save the checkpoint again."
        ) from error


def _check(entries: Any, *, data: int, total: int) -> dict[str, Entry]:
    if not isinstance(entries, dict):
        raise ValueError("its header is not a JSON object")
    entries.pop("__metadata__", None)
    fields = {name: (entry["data_offsets"], entry["dtype"], entry["shape"]) for name, entry in entries.items()}
    end = 0
    result = {}
    for name, ((start, stop), dtype, shape) in sorted(fields.items(), key=lambda item: (item[1][0][0], item[1][0][1])):
        if dtype not in BITS:
            raise ValueError(f"tensor '{name}' has the unknown type {dtype!r}")
        if not all(isinstance(size, int) and size >= 0 for size in (start, stop, *shape)):
            raise ValueError(f"tensor '{name}' has sizes that are not whole numbers")
        if start != end:
            raise ValueError(f"tensor '{name}' {'overlaps the one before it' if start < end else 'leaves a gap'}")
        if 8 * (stop - start) != math.prod(shape) * BITS[dtype]:
            raise ValueError(f"tensor '{name}' of shape {shape} does not take {stop - start} bytes")
        end = stop
        result[name] = Entry(dtype, tuple(shape), data + start, stop - start)
    if data + end != total:
        raise ValueError(f"its tensors end at byte {data + end} of {total}")
    return result
