"""The user's cache: directories that are written once, atomically and by one process at a time, and short texts."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import get_ident

from ..errors import ModelReferenceError
from ..system.page_cache import reread

HEADROOM = 64 << 20  # bytes that are left free, because a full disk harms other programs, too


class CacheFull(ModelReferenceError):
    """The disk that holds the cache has too little free space."""


def cache_directory() -> Path:
    """The directory that `RESIDENCY_CACHE` names, or else `residency` in the user's cache folder.

    Raises ModelReferenceError for a user without a home directory.
    """
    try:
        if named := os.environ.get("RESIDENCY_CACHE"):
            return Path(named).expanduser().absolute()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "residency"
    except RuntimeError as error:  # a container's user may have neither HOME nor an entry in /etc/passwd
        raise ModelReferenceError(
            "This user has no home directory, so there is no cache for checkpoints."
            " Set RESIDENCY_CACHE to the absolute path of a writable folder."
        ) from error


def write_once(name: str, nbytes: int, write: Callable[[Path], None]) -> Path:
    """The directory `name` in the cache. If it does not exist, `write(directory)` fills it first.

    `nbytes` is roughly the space that `write` needs; free space is checked first. Readers see a complete directory or
    none. The lock is an `flock`, which the kernel releases when its holder dies. Raises CacheFull, and
    ModelReferenceError if the cache cannot be written.
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
            " Set RESIDENCY_CACHE to a writable folder."
        ) from error
    return target


def recall_or_make(name: str, make: Callable[[], str]) -> str:
    """The text that is remembered under `name`, or else what `make` returns, which is then remembered.

    `make` is called each time if the cache cannot be read or written.
    """
    if text := recall(name):
        return text
    text = make()
    remember(name, text)
    return text


def recall(name: str) -> str:
    """The text that is remembered under `name`; "" if there is none."""
    file = remembered_file(name)
    with suppress(OSError, ValueError):
        return "" if file is None else file.read_text(encoding="utf-8")
    return ""


def remember(name: str, text: str) -> None:
    """Write the text to the cache under `name`. Does nothing if the cache cannot be written."""
    if (file := remembered_file(name)) is None:
        return
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f"{name}.{os.getpid()}.{get_ident()}.partial")
        partial.write_text(text, encoding="utf-8")
        partial.rename(file)


def remembered_file(name: str) -> Path | None:
    """The file of the text that is remembered under `name`; None if the user has no cache."""
    with suppress(ModelReferenceError):
        return cache_directory() / "known" / name
    return None


def _write(target: Path, nbytes: int, write: Callable[[Path], None]) -> None:
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # left behind by a process that was killed
    free = shutil.disk_usage(target.parent).free
    if free < nbytes + HEADROOM:
        raise CacheFull(
            f"'{target.name}' needs {nbytes >> 20} MiB in the cache {target.parent}, but only {free >> 20} MiB are"
            " free. Free some space, or set RESIDENCY_CACHE to a folder on another disk."
        )
    partial.mkdir()
    try:
        write(partial)
        for file in partial.rglob("*"):
            if file.is_file():
                reread(file)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
