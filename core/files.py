"""Paths and files that a user names: odd ones are refused in a sentence, and none is read without end."""

from __future__ import annotations

import stat
from pathlib import Path

from .errors import FileError


def anchored(name: str, folder: Path) -> Path:
    """`name` as seen from `folder`, absolute. Raises FileError for what can be no path."""
    try:
        if not name.isprintable():
            raise ValueError("it holds a control character")
        path = (folder / Path(name).expanduser()).absolute()
        path.is_dir()  # raises for a name that is too long
    except (OSError, ValueError, RuntimeError) as error:
        raise FileError(f"{name[:60]!r} is no usable path: {str(error).rstrip('.')}.") from error
    return path


def read_text(path: Path, limit: int) -> str:
    """A regular file's text in UTF-8. Raises FileError, also above `limit` bytes."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise FileError(f"{path}: cannot be read: is no regular file.")
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}.") from error
    if len(data) > limit:
        raise FileError(f"{path}: is larger than {limit >> 20} MiB; cut it, or move long texts to a file of their own.")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FileError(f"{path}: is not UTF-8 (byte {error.start}).") from error
