"""Paths and files named by users: invalid ones are refused with a sentence, and reading is bounded."""

from __future__ import annotations

import stat
from pathlib import Path

from ..errors import FileError


def resolve_path(name: str, folder: Path) -> Path:
    """The absolute path of `name`, relative to `folder`. Raises FileError if it cannot be a path."""
    try:
        if not name.isprintable():
            raise ValueError("it contains a control character")
        path = (folder / Path(name).expanduser()).absolute()
        path.is_dir()  # raises for a name that is too long
    except (OSError, ValueError, RuntimeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise FileError(f"{name[:60]!r} is not a usable path: {str(why).rstrip('.')}.") from error
    return path


def read_text(path: Path, limit: int, remedy: str = "shorten it") -> str:
    """The text of a regular file in UTF-8, without its byte order mark.

    Raises FileError if the file cannot be read, or is larger than `limit` bytes; `remedy` then ends the sentence.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise FileError(f"{path}: cannot be read: it is not a regular file.")
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


def split_lines(text: str) -> list[str]:
    r"""The lines of a text file, without line feeds and the carriage returns before them.

    `str.splitlines` would also split at \x0b, \x0c, \x1c to \x1e, \x85, \u2028 and \u2029.
    """
    lines = text.split("\n")
    return [line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1])]
