"""What an import cannot carry over, line by line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from ..config.strict_yaml import Document, Path_, key_of


class Note(NamedTuple):
    """A sentence about a key of the file that is imported."""

    line: int
    key: str
    sentence: str
    model: str | None
    """The name of the model that it is about; None: the file."""

    def __str__(self) -> str:
        return f"line {self.line}: {self.key}: {self.sentence}"


@dataclass
class Notes:
    """The notes about a document, each once."""

    document: Document
    _notes: list[Note] = field(default_factory=list)

    def add(self, where: Path_, sentence: str) -> None:
        """Note that what is at `where` means something else here, or nothing."""
        model = str(where[1]) if where[0] == "models" and len(where) > 1 else None
        note = Note(self.document.place(where)[0], key_of(where), sentence, model)
        if note not in self._notes:
            self._notes.append(note)

    def in_order(self) -> list[Note]:
        """All notes, in the order of the file's lines."""
        return sorted(self._notes, key=lambda note: (note.line, note.key))
