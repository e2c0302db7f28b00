"""What strategies have learned, in a file, so that it survives a restart."""

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
MINUTE = 60.0  # seconds; what is learned in that time may be lost


class StateFile:
    """A JSON file that is replaced as a whole."""

    def __init__(self, path: Path, every: float = MINUTE) -> None:
        """`every` is how often the file is written, in seconds."""
        self.every = every
        self._path = path.absolute()
        self._lock = Lock()  # protects the attributes below
        self._states: dict[str, Any] = {}  # by strategy, with those that are not mounted now
        self._written = ""
        self._failed = False

    def read(self) -> dict[str, str]:
        """What each strategy had learned, as JSON, by name; empty if there is no file yet. Raises StartupFailed."""
        try:
            content = json.loads(self._path.read_text())
            if content["format"] != FORMAT:
                raise ValueError(f"its format is {content['format']}")
            self._states = dict(content["strategies"])
            return {name: json.dumps(state) for name, state in self._states.items()}
        except FileNotFoundError:
            if not self._path.parent.is_dir():
                raise StartupFailed(f"state: there is no folder {self._path.parent}; make it.") from None
            return {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise StartupFailed(
                f"state: {self._path} does not hold the state of strategies ({error}); move it away."
            ) from error

    def write(self, states: Mapping[str, str]) -> None:
        """Write the states, JSON by strategy, if they have changed. A failure is logged once, and not raised."""
        with self._lock:
            self._states |= {name: json.loads(state) for name, state in states.items()}
            text = json.dumps({"format": FORMAT, "strategies": self._states})
            if text != self._written:
                self._replace(text)

    def _replace(self, text: str) -> None:
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            temporary.write_text(text)
            temporary.replace(self._path)
            self._written, self._failed = text, False
        except OSError as error:
            if not self._failed:
                log.error("%s cannot be written, so what is learned will be lost: %s", self._path, error.strerror)
            self._failed = True
