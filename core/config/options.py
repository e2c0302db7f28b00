"""Options of strategies and loaders: the keyword-only parameters of a class, as a strict model."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Collection, Sequence
from types import SimpleNamespace
from typing import Any

from pydantic import BaseModel, BeforeValidator, ByteSize, ConfigDict, Strict, ValidationError, create_model
from pydantic_core import ErrorDetails

from ..errors import OptionError, PluginError
from .quantities import seconds, size
from .wrong_values import together, wrong

STRICT = ConfigDict(strict=True, extra="forbid", validate_default=True, frozen=True)


def options_model(cls: type[Any]) -> type[BaseModel]:
    """The pydantic model of what stands behind the `*` in `cls.__init__`.

    Raises PluginError for a signature that cannot be a contract.
    """
    parameters = list(inspect.signature(cls).parameters.values())
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if positional or any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
        raise PluginError(
            f"{cls.__name__}.__init__ must have the form (self, *, option: type = default, …): options are"
            " keyword-only and named one by one, so that a misspelt one can be refused."
        )
    fields: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY:
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[parameter.name] = (_annotation(cls, parameter), default)
    return create_model(cls.__name__, __config__=STRICT, __doc__=cls.__doc__, **fields)


def _annotation(cls: type[Any], parameter: inspect.Parameter) -> Any:
    """Resolve one annotation by itself."""
    if parameter.annotation is parameter.empty:
        raise PluginError(f"Option '{parameter.name}' of {cls.__name__} has no type; annotate it.")
    alone = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    names = getattr(inspect.unwrap(cls.__init__), "__globals__", {})
    try:
        return _as_written(typing.get_type_hints(alone, globalns=names, include_extras=True)[parameter.name])
    except NameError as error:
        raise PluginError(
            f"The type of option '{parameter.name}' of {cls.__name__} cannot be resolved at run time ({error});"
            " import it outside of `if TYPE_CHECKING`."
        ) from error


def _as_written(annotation: Any) -> Any:
    """The annotation, which reads what people write as well: for a `float` also a duration, in seconds (but not where
    `Field(strict=True)` asks for a number), and a size as a whole, where pydantic reads as much of it as it knows.
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is float:
        return typing.Annotated[float, BeforeValidator(seconds)]
    if annotation is ByteSize:
        return typing.Annotated[ByteSize, BeforeValidator(size)]
    if origin is typing.Annotated:
        kept, *rules = arguments
        return annotation if kept is float and any(map(_is_strict, rules)) else _annotated(_as_written(kept), rules)
    if origin in (typing.Union, types.UnionType):
        return typing.Union[tuple(map(_as_written, arguments))]  # noqa: UP007
    if isinstance(origin, type) and issubclass(origin, Collection):
        return origin[tuple(map(_as_written, arguments))]  # type: ignore[index]
    return annotation


def _annotated(annotation: Any, rules: Sequence[Any]) -> Any:
    return typing.Annotated[(annotation, *rules)]


def _is_strict(rule: Any) -> bool:
    return any(isinstance(each, Strict) and each.strict for each in (rule, *getattr(rule, "metadata", ())))


def in_seconds(written: Any, read: Any) -> Any:
    """What was written, with its durations as they were read: in seconds, for whoever computes with them."""
    if isinstance(written, str) and isinstance(read, float):
        return read
    if isinstance(written, dict) and isinstance(read, dict):
        return {key: in_seconds(value, read.get(key)) for key, value in written.items()}
    if isinstance(written, list) and isinstance(read, list | tuple) and len(written) == len(read):
        return [in_seconds(value, each) for value, each in zip(written, read, strict=True)]
    return written


def validate_options(model: type[BaseModel], options: dict[str, Any], owner: str) -> dict[str, Any]:
    """`options` as constructor arguments. Raises OptionError, whose sentence starts with `owner`."""
    try:
        # Defaults are left to the constructor, as Python would have it.
        return {name: value for name, value in model(**options) if name in options}
    except ValidationError as error:
        details = error.errors(include_url=False)
        name = str(details[0]["loc"][0])
        raise OptionError(f"{owner}: {_sentence(name, details, model)}.", name) from error


def _sentence(name: str, details: Sequence[ErrorDetails], model: type[BaseModel]) -> str:
    kind = details[0]["type"]
    if kind == "extra_forbidden":
        return f"there is no option '{name}'; allowed: {', '.join(model.model_fields) or 'none'}"
    if kind == "missing":
        return f"option '{name}' is required"
    own = [detail for detail in details if detail["loc"][0] == name]
    # Of a union each part says something: those that went the furthest into the value know best.
    deepest = max(len(detail["loc"]) for detail in own)
    field = model.model_fields[name] if deepest <= 2 else None
    return f"option '{name}': " + together(wrong(d, field) for d in own if len(d["loc"]) == deepest)


def describe_options(model: type[BaseModel]) -> list[tuple[str, str, str]]:
    """(name, type, default) of each option, as a person writes them."""
    return [
        (name, _type_name(field.annotation), "required" if field.is_required() else str(field.default))
        for name, field in model.model_fields.items()
    ]


def _type_name(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type_name(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " | ".join(_type_name(argument) for argument in arguments)
    if isinstance(origin, type):
        return f"{origin.__name__}[{', '.join(_type_name(argument) for argument in arguments)}]"
    if origin is typing.Literal:
        return " | ".join(str(argument) for argument in arguments)
    return "None" if annotation is type(None) else getattr(annotation, "__name__", str(annotation))
