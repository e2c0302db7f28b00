"""Engines that live elsewhere, such as in a container: what would stop one is on disk for as long as it may run.

The file is locked by the process that started the engine. The kernel releases the lock when that process ends, however
that happens. So a file that nobody has locked is of a server that was killed, and the next one stops what it left.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import secrets
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from ...checkpoints.cache import cache_directory
from ...errors import EngineFailed, ModelReferenceError

log = logging.getLogger("residency")
STOP_SECONDS = 30.0  # that a command to stop an engine may take; `docker stop` itself waits for 10 s


class RunFile:
    """The file of one engine."""

    def __init__(self, model_id: str, stop: Sequence[str], environment: Mapping[str, str]) -> None:
        """Write and lock it. Raises EngineFailed if the cache cannot be written."""
        self._file: IO[str] | None = None
        try:
            folder = _folder()
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{secrets.token_hex(8)}.json"
            partial = path.with_suffix(".partial")
            file = os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8")
            fcntl.flock(file, fcntl.LOCK_EX)
            json.dump({"model": model_id, "stop": list(stop), "environment": dict(environment)}, file)
            file.flush()
            partial.rename(path)
        except (OSError, ModelReferenceError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise EngineFailed(
                f"the cache cannot be written ({why}), so that nothing would stop it after this server was killed. Set"
                " RESIDENCY_CACHE to a writable folder."
            ) from error
        self._file, self._path = file, path

    def close(self) -> None:
        """Remove the file: the engine is stopped."""
        self._path.unlink(missing_ok=True)
        if self._file is not None:
            self._file.close()


def stop_leftovers() -> None:
    """Stop the engines that a killed server has left elsewhere, each by one call of its command."""
    with suppress(ModelReferenceError):  # there is no cache
        for path in _folder().glob("*.json"):
            with suppress(OSError), path.open("r+", encoding="utf-8") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: its server runs
                if path.exists():  # another process may have been faster
                    _stop_leftover(file)
                    path.unlink(missing_ok=True)


def _stop_leftover(file: IO[str]) -> None:
    try:
        left = json.load(file)
        model_id, stop, environment = left["model"], [*map(str, left["stop"])], {**os.environ, **left["environment"]}
    except (ValueError, KeyError, TypeError):
        log.warning("A file in the folder 'engines' of the cache is broken; it is removed.")
        return
    log.warning("Model '%s' may still run since a server was killed; it is stopped.", model_id)
    run_stop(model_id, stop, environment)


def run_stop(model_id: str, stop: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run the command that stops an engine, and wait for it. A failure is logged."""
    try:
        done = subprocess.run(
            stop,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            timeout=STOP_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("%s: the command under 'stop' failed: %s", model_id, error)
        return
    if done.returncode:
        said = done.stdout.decode("utf-8", "replace").strip()[-300:]
        log.warning("%s: the command under 'stop' ended with status %d: %s", model_id, done.returncode, said)


def _folder() -> Path:
    return cache_directory() / "engines"
