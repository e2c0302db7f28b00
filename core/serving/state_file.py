"""What strategies have learned, on disk, so that it survives a restart."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from ..errors import StartupFailed

log = logging.getLogger("residency")
FORMAT = 1
MINUTE = 60.0  # of learning may be lost


class StateFile:
    """One JSON file, replaced as a whole."""

    def __init__(self, path: Path, every: float = MINUTE) -> None:
        """Whoever runs the strategies writes it after so many seconds each time."""
        self.every = every
        self._path = path.absolute()
        self._lock = Lock()  # protects what stands below
        self._known: dict[str, Any] = {}  # by strategy; that of one that is not mounted now is kept
        self._written = ""
        self._failed = False

    def read(self) -> dict[str, str]:
        """By strategy, what each had learned, as JSON; nothing where there is no file yet. Raises StartupFailed."""
        try:
            content = json.loads(self._path.read_text())
            if content["format"] != FORMAT:
                raise ValueError(f"its format is {content['format']}")
            self._known = dict(content["strategies"])
            return {name: json.dumps(state) for name, state in self._known.items()}
        except FileNotFoundError:
            if not self._path.parent.is_dir():
                raise StartupFailed(f"state: there is no folder {self._path.parent}; make it.") from None
            return {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise StartupFailed(
                f"state: {self._path} does not hold what strategies have learned ({error}); move it away."
            ) from error

    def write(self, states: Mapping[str, str]) -> None:
        """A failure is told once, and ends nothing."""
        with self._lock:
            self._known |= {name: json.loads(state) for name, state in states.items()}
            text = json.dumps({"format": FORMAT, "strategies": self._known})
            if text != self._written:
                self._replace(text)

    def _replace(self, text: str) -> None:
        beside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            beside.write_text(text)
            beside.replace(self._path)
            self._written, self._failed = text, False
        except OSError as error:
            if not self._failed:
                log.error("%s cannot be written, so what is learned will be lost: %s", self._path, error.strerror)
            self._failed = True
