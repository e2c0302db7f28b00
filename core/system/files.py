"""Paths and files that a user names: odd ones are refused in a sentence, and none is read without end."""

from __future__ import annotations

import stat
from pathlib import Path

from ..errors import FileError


def anchored(name: str, folder: Path) -> Path:
    """`name` as seen from `folder`, absolute. Raises FileError for what can be no path."""
    try:
        if not name.isprintable():
            raise ValueError("it holds a control character")
        path = (folder / Path(name).expanduser()).absolute()
        path.is_dir()  # raises for a name that is too long
    except (OSError, ValueError, RuntimeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise FileError(f"{name[:60]!r} is no usable path: {str(why).rstrip('.')}.") from error
    return path


def read_text(path: Path, limit: int, remedy: str = "cut it") -> str:
    """A regular file's text in UTF-8, without a byte order mark. Raises FileError, also above `limit` bytes."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise FileError(f"{path}: cannot be read: is no regular file.")
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}.") from error
    if len(data) > limit:
        raise FileError(f"{path}: is larger than {limit >> 20} MiB; {remedy}.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileError(f"{path}: is not UTF-8 (byte {error.start}); save it as UTF-8.") from error


def lines_of(text: str) -> list[str]:
    r"""The lines of a text file: line feeds end them, a carriage return before one is no part of the line.

    Unlike `str.splitlines`, which also splits at \x0b, \x0c, \x1c to \x1e, \x85, \u2028 and \u2029.
    """
    lines = text.split("\n")
    return [line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1])]
