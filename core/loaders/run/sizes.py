"""How much memory an engine will take: what it took the last time, or else the sizes of the files that it is given."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import NamedTuple

from ...checkpoints.cache import recall, remember

WEIGHTS = (".gguf", ".safetensors")
LARGE = 1 << 20  # bytes from which a file that a command names counts, whatever its name
SHARD = re.compile(r"(.*)-\d{5}-of-(\d{5}\.\w+)")  # the first of several files; the others are read, too
GROWTH = 1.05  # a peak is written again when it has grown by this


class NamedFile(NamedTuple):
    """A file that a command names, or that is in a directory that it names."""

    path: str
    nbytes: int
    modified: int


class Peak:
    """The most memory that an engine took in its latest process, kept on disk for its command and its files."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """`command` without its port, which differs each time, and the `environment` that is configured for it."""
        self.files = list(named_files(command))
        about = repr((list(command), sorted(environment.items()), self.files))
        self._name = f"engine-memory-{hashlib.sha256(about.encode()).hexdigest()[:32]}"
        self._peak = self._written = 0

    def recall(self) -> int | None:
        """Bytes that it took the last time, or None."""
        with suppress(ValueError):
            return int(recall(self._name))
        return None

    def guess(self) -> int | None:
        """Bytes of its files, or None if it names none."""
        return sum(file.nbytes for file in self.files) or None

    def note(self, nbytes: int) -> None:
        """Take a measurement into account."""
        self._peak = max(self._peak, nbytes)
        if self._peak > self._written * GROWTH:
            remember(self._name, str(self._peak))
            self._written = self._peak


def named_files(command: Sequence[str]) -> Iterator[NamedFile]:
    """The model files that the command's arguments name, each once. Its program does not count."""
    seen = set()
    for argument in command[1:]:
        for word in {argument, argument.partition("=")[2]} - {""}:
            for path in _files_of(Path(word)):
                with suppress(OSError, ValueError):
                    status = path.stat()
                    is_model = path.suffix in WEIGHTS or status.st_size >= LARGE
                    if S_ISREG(status.st_mode) and is_model and path not in seen:
                        seen.add(path)
                        yield NamedFile(str(path), status.st_size, status.st_mtime_ns)


def _files_of(path: Path) -> list[Path]:
    """The file itself, with those that belong to it; of a directory, the files of weights in it."""
    with suppress(OSError, ValueError):  # most arguments are no paths
        mode = path.stat().st_mode
        if S_ISDIR(mode):
            return sorted(file for file in path.iterdir() if file.suffix in WEIGHTS)
        if match := SHARD.fullmatch(path.name):
            return sorted(path.parent.glob(f"{match[1]}-*-of-{match[2]}"))
        return [path]
    return []
