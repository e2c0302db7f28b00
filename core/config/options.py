"""Options of strategies and loaders: the keyword-only parameters of a class, as a strict pydantic model."""

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
from .quantities import parse_seconds, parse_size
from .wrong_values import explain, join_alternatives

STRICT = ConfigDict(strict=True, extra="forbid", validate_default=True, frozen=True)


def options_model(cls: type[Any]) -> type[BaseModel]:
    """The pydantic model of the keyword-only parameters of `cls.__init__`.

    Raises PluginError if there are other parameters, or if one has no type.
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
    """The type of a parameter, resolved. Raises PluginError."""
    if parameter.annotation is parameter.empty:
        raise PluginError(f"Option '{parameter.name}' of {cls.__name__} has no type; annotate it.")
    alone = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    names = getattr(inspect.unwrap(cls.__init__), "__globals__", {})
    try:
        return _accept_units(typing.get_type_hints(alone, globalns=names, include_extras=True)[parameter.name])
    except NameError as error:
        raise PluginError(
            f"The type of option '{parameter.name}' of {cls.__name__} cannot be resolved at run time ({error});"
            " import it outside of `if TYPE_CHECKING`."
        ) from error


def _accept_units(annotation: Any) -> Any:
    """The annotation, extended to accept units: a `float` accepts durations, a `ByteSize` accepts sizes.

    A float with `Field(strict=True)` accepts only numbers. Sizes are parsed here, because pydantic ignores the end of a
    size that it does not understand.
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is float:
        return typing.Annotated[float, BeforeValidator(parse_seconds)]
    if annotation is ByteSize:
        return typing.Annotated[ByteSize, BeforeValidator(parse_size)]
    if origin is typing.Annotated:
        kept, *rules = arguments
        return annotation if kept is float and any(map(_is_strict, rules)) else _annotate(_accept_units(kept), rules)
    if origin in (typing.Union, types.UnionType):
        return typing.Union[tuple(map(_accept_units, arguments))]  # noqa: UP007
    if isinstance(origin, type) and issubclass(origin, Collection):
        return origin[tuple(map(_accept_units, arguments))]  # type: ignore[index]
    return annotation


def _annotate(annotation: Any, rules: Sequence[Any]) -> Any:
    return typing.Annotated[(annotation, *rules)]


def _is_strict(rule: Any) -> bool:
    return any(isinstance(each, Strict) and each.strict for each in (rule, *getattr(rule, "metadata", ())))


def in_seconds(written: Any, parsed: Any) -> Any:
    """The value as the user wrote it, with durations replaced by their seconds from `parsed`, its validated form."""
    if isinstance(written, str) and isinstance(parsed, float):
        return parsed
    if isinstance(written, dict) and isinstance(parsed, dict):
        return {key: in_seconds(value, parsed.get(key)) for key, value in written.items()}
    if isinstance(written, list) and isinstance(parsed, list | tuple) and len(written) == len(parsed):
        return [in_seconds(value, part) for value, part in zip(written, parsed, strict=True)]
    return written


def validate_options(model: type[BaseModel], options: dict[str, Any], owner: str) -> dict[str, Any]:
    """`options` as constructor arguments. Raises OptionError, whose message starts with `owner`."""
    try:
        # Options that are left out are left to the defaults of the constructor.
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
    # Each type of a union reports errors. Those with the deepest location explain best what is wrong.
    deepest = max(len(detail["loc"]) for detail in own)
    field = model.model_fields[name] if deepest <= 2 else None
    return f"option '{name}': " + join_alternatives(explain(d, field) for d in own if len(d["loc"]) == deepest)


def describe_options(model: type[BaseModel]) -> list[tuple[str, str, str]]:
    """(name, type, default) of each option, as texts for users."""
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
