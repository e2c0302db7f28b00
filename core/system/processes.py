"""Child processes that end with this one, however it ends."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import IO

_libc = ctypes.CDLL(None) if sys.platform == "linux" else None
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
# Runs in the child before the command. `preexec_fn` would run Python between fork and exec, which may deadlock in a
# process with threads. PR_SET_PDEATHSIG is 1; exec keeps the setting.
BIND = (
    "import ctypes, os, signal, sys; ctypes.CDLL(None).prctl(1, signal.SIGKILL); "
    "os.getppid() == int(sys.argv[1]) or os._exit(1); os.execvp(sys.argv[2], sys.argv[2:])"
)


@cache
def _starter() -> ThreadPoolExecutor:
    """One thread that starts all children, and lives as long as this process.

    The kernel kills a child of PR_SET_PDEATHSIG when the *thread* that started it ends (prctl(2)).
    """
    return ThreadPoolExecutor(1, thread_name_prefix="process-starter")


def start_bound(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    output: int | IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a command that is killed when this process ends, even by kill -9. Its output and errors go to `output`.

    It has a session of its own: Ctrl-C is for us, and we end it in order.
    """
    bound = [sys.executable, "-IS", "-c", BIND, str(os.getpid()), *command] if sys.platform == "linux" else command

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            bound,
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=None if output is None else subprocess.STDOUT,
            start_new_session=True,
        )

    return _starter().submit(start).result()


def end(process: subprocess.Popen[bytes], grace: float) -> int:
    """End a process with SIGTERM and, if it runs after `grace` seconds, with SIGKILL. Returns its status."""
    process.terminate()
    try:
        return process.wait(grace)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def die_with_parent() -> None:
    """Make the kernel kill this child when its parent ends, however that happens (prctl(2)).

    It is the `preexec_fn` of a Popen. The kernel means the thread that started the child, which must not end earlier.
    """
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def adopt_orphans() -> None:
    """Make this process the parent of descendants whose own parents end. exec keeps the setting."""
    if _libc is not None:
        _libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
