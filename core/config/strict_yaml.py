"""YAML as a configuration format: plain values only, and every error gives its place in the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from ..errors import YamlError
from ..system.files import read_text
from .wrong_values import explain, explain_yaml, join_alternatives

MAX_BYTES = 1 << 20
MAX_NODES = 20_000
MAX_DEPTH = 12
Place = tuple[int, int]  # line and column, from 1
Path_ = tuple[str | int, ...]  # keys and indices from the root
ModelType = TypeVar("ModelType", bound=BaseModel)
# libyaml if PyYAML has it: the pure Python scanner takes seconds for a megabyte.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Document:
    """A parsed file: its plain `value`, and the place of each part of it."""

    def __init__(self, path: Path, value: Any, places: dict[Path_, Place]) -> None:
        self.path = path
        self.value = value
        self._places = places

    def error(self, where: Path_, sentence: str) -> YamlError:
        """A YamlError at the innermost part of `where` that is in the file."""
        line, column = self.place(where)
        key = key_of(where)
        return YamlError(f"{self.path}:{line}:{column}: {f'{key}: ' if key else ''}{sentence}")

    def place(self, where: Path_) -> Place:
        """Line and column of the innermost part of `where` that is in the file."""
        while where and where not in self._places:
            where = where[:-1]
        return self._places.get(where, (1, 1))

    def validate(self, model: type[ModelType]) -> ModelType:
        """The document as a `model`. Raises YamlError, which names one wrong key."""
        if not isinstance(self.value, dict):
            raise self.error((), f"must be a mapping with the keys {_keys(model)}.")
        try:
            return model.model_validate(self.value)
        except ValidationError as error:
            details = error.errors(include_url=False)
            # A misspelt key explains a missing one, and a nested error explains those of its parents.
            first = max(details, key=lambda detail: (detail["type"] == "extra_forbidden", len(detail["loc"])))
            alike = [detail for detail in details if len(detail["loc"]) == len(first["loc"])]
            raise self.invalid([first, *alike], model) from error

    def invalid(self, details: Sequence[ErrorDetails], model: type[BaseModel]) -> YamlError:
        """A YamlError for pydantic's first error, with its other errors at the same place."""
        where = self._where(details[0])
        sentences = (_sentence(detail, model) for detail in details if self._where(detail) == where)
        return self.error(where, join_alternatives(sentences) + ".")

    def _where(self, detail: ErrorDetails) -> Path_:
        """pydantic's location, without parts that are not in the file, such as the field of a short form."""
        where: Path_ = ()
        for part in detail["loc"]:
            if (*where, part) in self._places:
                where = (*where, part)
        return (*where, detail["loc"][-1]) if detail["type"] == "missing" else where


def key_of(where: Path_) -> str:
    """The keys and indices as in an error: `models.chat.env[0]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where)[1:]


def read(path: Path) -> Document:
    """The parsed file.

    Raises FileError if it cannot be read, and YamlError for anchors, tags, duplicate keys, and too large a file.
    """
    return parse(read_text(path, MAX_BYTES, "move long texts to a separate file"), path)


def parse(text: str, path: Path, change: Callable[[Iterator[Any]], Iterator[Any]] = iter) -> Document:
    """The parsed text. Raises YamlError, as `read` does; `path` is used in errors.

    `change` may replace the parser's events, so that files of other programs may have what ours may not.
    """
    builder = _Builder(path)
    try:
        value = builder.build(change(yaml.parse(text, Loader=_Loader)))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        problem = f"{error.context} {error.problem}"
        raise YamlError(f"{path}:{line}:{column}: is not valid YAML: {explain_yaml(problem)}.") from error
    except yaml.YAMLError as error:
        raise YamlError(f"{path}: is not valid YAML: {explain_yaml(str(error))}.") from error
    return Document(path, value, builder.places)


class _Builder:
    """Builds plain values from the parser's events, so that a document that is too large is refused early."""

    def __init__(self, path: Path) -> None:
        self.places: dict[Path_, Place] = {}
        self._path = path
        self._scalars: Any = yaml.SafeLoader("")

    def build(self, events: Iterator[Any]) -> Any:
        """The value of the document. Raises YamlError."""
        value: Any = {}
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self._refusal(event, "contains more than one document; keep one")
            elif isinstance(event, yaml.NodeEvent):
                value = self._node(event, events, ())
        return value

    def _node(self, event: Any, events: Iterator[Any], where: Path_) -> Any:
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise self._refusal(event, "anchors and aliases are not supported; write the value out")
        if event.tag is not None:
            raise self._refusal(event, f"the tag {event.tag} is not supported; write a plain value")
        if len(where) > MAX_DEPTH:
            raise self._refusal(event, f"is nested more than {MAX_DEPTH} levels deep")
        if len(self.places) >= MAX_NODES:
            raise self._refusal(event, f"contains more than {MAX_NODES} values; move long texts to a separate file")
        self.places.setdefault(where, _place(event))
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(events, where)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(events, where)
        return self._scalar(event)

    def _mapping(self, events: Iterator[Any], where: Path_) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            if not isinstance(event, yaml.ScalarEvent) or event.tag is not None or event.anchor is not None:
                raise self._refusal(event, "a key must be plain text")
            key = event.value
            if key in result:
                line = self.places[(*where, key)][0]
                raise self._refusal(event, f"the key '{key}' was already used in line {line}")
            # Errors about a key give the place of the key, not of its value.
            self.places[(*where, key)] = _place(event)
            result[key] = self._node(next(events), events, (*where, key))
        return result

    def _sequence(self, events: Iterator[Any], where: Path_) -> list[Any]:
        result: list[Any] = []
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            result.append(self._node(event, events, (*where, len(result))))
        return result

    def _scalar(self, event: Any) -> Any:
        """The value by the rules of YAML 1.2, where `yes`, `12:30` and dates are text."""
        text: str = event.value
        if not event.implicit[0]:
            return text
        tag = self._scalars.resolve(yaml.ScalarNode, text, (True, False)).rpartition(":")[2]
        if tag == "null":
            return None
        if tag == "bool" and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if tag in ("int", "float"):
            for number in (int, float):
                try:
                    return number(text)
                except ValueError:
                    continue
        return text

    def _refusal(self, event: Any, sentence: str) -> YamlError:
        line, column = _place(event)
        return YamlError(f"{self._path}:{line}:{column}: {sentence}.")


def _place(event: Any) -> Place:
    return event.start_mark.line + 1, event.start_mark.column + 1


def _keys(model: type[BaseModel]) -> str:
    return ", ".join(str(key) for key in _fields(model))


def _sentence(detail: ErrorDetails, model: type[BaseModel]) -> str:
    owner, field = _owner(model, detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f"is not a known key; allowed: {_keys(owner)}"
    if detail["type"] == "missing":
        return "is required"
    return explain(detail, field)


def _fields(model: type[BaseModel]) -> dict[int | str, FieldInfo]:
    """The fields of the model by their keys in a file."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _owner(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[type[BaseModel], FieldInfo | None]:
    """The model whose keys are allowed at the last part of `loc`, and its field there."""
    field = None
    for part in loc:
        model = next(_models_in(field.annotation), model) if field is not None else model
        field = _fields(model).get(part)
    return model, field


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
