"""The texts of an experiment: a list, the lines of a file, or the JSON strings of a .jsonl file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, model_validator

from ..config.choices import STRICT
from ..errors import FileError
from ..system.files import read_text, split_lines

MAX_TEXTS = 10_000
MAX_TEXT = 1_000_000  # characters
MAX_BYTES = 32 << 20  # of all texts, as UTF-8
# A character may take six times its bytes in JSON (\u000b). All accepted texts can be written and read again.
MAX_JSON_BYTES = 6 * MAX_BYTES + (1 << 20)

Text = Annotated[str, Field(max_length=MAX_TEXT)]


class Texts(BaseModel):
    """A list of texts, or `{file: path}`, a file with one text per line, or with JSON strings (.jsonl)."""

    model_config = STRICT

    inline: Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)] | None = None
    file: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_short_form(cls, value: Any) -> Any:
        if isinstance(value, list):
            return {"inline": value}
        if isinstance(value, dict) and set(value) == {"file"}:
            return value
        raise ValueError("must be a list of texts, or {file: path}")


def read_texts(path: Path) -> tuple[str, ...]:
    """All texts of the file, without blank lines. Raises FileError, which names file and line."""
    is_json = path.suffix.lower() == ".jsonl"
    lines = split_lines(read_text(path, MAX_JSON_BYTES if is_json else MAX_BYTES))
    texts = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            text = _from_json(path, number, line) if is_json else line
            if len(text) > MAX_TEXT:
                raise FileError(f"{path}:{number}: is a text of {len(text)} characters; {MAX_TEXT} are allowed.")
            texts.append(text)
    if not 1 <= len(texts) <= MAX_TEXTS:
        raise FileError(f"{path} must contain 1 to {MAX_TEXTS} lines with text, but contains {len(texts)}.")
    if sum(len(text.encode()) for text in texts) > MAX_BYTES:
        raise FileError(f"{path} contains more than {MAX_BYTES >> 20} MiB of text; shorten it.")
    return tuple(texts)


def _from_json(path: Path, number: int, line: str) -> str:
    try:
        text = json.loads(line)
        if isinstance(text, str):
            text.encode()  # half of a surrogate pair cannot be sent
            return text
    except (ValueError, RecursionError):
        pass
    raise FileError(f'{path}:{number}: must be a JSON string, such as "Not worth the money."')


def json_lines(texts: Sequence[str]) -> Iterator[str]:
    """The lines of a .jsonl file from which `read_texts` reads the same texts."""
    for text in texts:
        yield json.dumps(text, ensure_ascii=False) + "\n"
