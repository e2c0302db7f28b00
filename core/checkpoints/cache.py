"""The user's cache of checkpoints that are written once: atomically, and by one process at a time."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import get_ident

from ..errors import ModelReferenceError
from ..system.page_cache import read_anew

HEADROOM = 64 << 20  # bytes that stay free: a full disk harms more than this program


class NoRoom(ModelReferenceError):
    """The disk of the cache is full."""


def cache_directory() -> Path:
    """`RESIDENCY_CACHE`, or `residency` in the user's cache folder.

    Raises ModelReferenceError for a user without a home directory.
    """
    try:
        if named := os.environ.get("RESIDENCY_CACHE"):
            return Path(named).expanduser().absolute()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "residency"
    except RuntimeError as error:  # a container's user may have neither HOME nor an entry in /etc/passwd
        raise ModelReferenceError(
            "This user has no home directory, and so no cache for checkpoints."
            " Point RESIDENCY_CACHE at a folder that can be written, by its whole path."
        ) from error


def cached(name: str, nbytes: int, write: Callable[[Path], None]) -> Path:
    """The directory `name` in the cache, made by `write(directory)` if it is not there yet.

    `nbytes` is about what `write` needs on disk; it is checked first. Readers see a whole directory
    or none. The lock is an `flock`, which the kernel releases when its holder dies.
    Raises ModelReferenceError when the cache cannot be written.
    """
    target = cache_directory() / name
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.with_name(f"{target.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.is_dir():
                _write(target, nbytes, write)
    except OSError as error:
        raise ModelReferenceError(
            f"Cannot write '{name}' to the cache {target.parent}: {error.strerror or error}."
            " Point RESIDENCY_CACHE at a folder that can be written."
        ) from error
    return target


def remembered(name: str, make: Callable[[], str]) -> str:
    """The text that `make` returned when it was first asked for `name`, from the cache.

    Where the cache cannot be read or written, or there is none, `make` is called each time.
    """
    if text := recall(name):
        return text
    text = make()
    remember(name, text)
    return text


def recall(name: str) -> str:
    """The text that was remembered under that name; "" if none was."""
    file = known(name)
    with suppress(OSError, ValueError):
        return "" if file is None else file.read_text(encoding="utf-8")
    return ""


def remember(name: str, text: str) -> None:
    """Keep the text under that name, if there is a cache that can be written."""
    if (file := known(name)) is None:
        return
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f"{name}.{os.getpid()}.{get_ident()}.partial")
        partial.write_text(text, encoding="utf-8")
        partial.rename(file)


def known(name: str) -> Path | None:
    """Where `remembered` keeps its text; None for a user who has no cache."""
    with suppress(ModelReferenceError):
        return cache_directory() / "known" / name
    return None


def _write(target: Path, nbytes: int, write: Callable[[Path], None]) -> None:
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # left by a process that was killed
    free = shutil.disk_usage(target.parent).free
    if free < nbytes + HEADROOM:
        raise NoRoom(
            f"'{target.name}' needs {nbytes >> 20} MiB in the cache {target.parent}, but only {free >> 20} MiB are"
            " free. Free some, or point RESIDENCY_CACHE at another disk."
        )
    partial.mkdir()
    try:
        write(partial)
        for file in partial.iterdir():
            read_anew(file)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
