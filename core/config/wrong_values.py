"""Sentences for values that pydantic refuses, and for text that PyYAML cannot parse. No other module writes these."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ByteSize, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from .quantities import DURATION_SUCH_AS, SIZE_SUCH_AS

MOST = 60  # characters of a value that are shown
WHAT = {  # by pydantic's type of an error: what the value must be, and an example
    **dict.fromkeys(("int_type", "int_parsing", "int_parsing_size", "int_from_float"), ("a whole number", "10")),
    **dict.fromkeys(("float_type", "float_parsing"), ("a number", "0.5")),
    "finite_number": ("a finite number", "0.5"),
    **dict.fromkeys(("bool_type", "bool_parsing"), ("true or false", "")),
    **dict.fromkeys(("string_type", "string_unicode", "path_type", "bytes_type"), ("text", "'12', in quotes")),
    **dict.fromkeys(("list_type", "tuple_type", "set_type", "frozen_set_type", "iterable_type"), ("a list", "[a, b]")),
    "sequence_str": ("a list", "[a, b]"),
    **dict.fromkeys(
        ("dict_type", "mapping_type", "model_type", "model_attributes_type", "dataclass_type"),
        ("a mapping, of keys to values", ""),
    ),
    "none_required": ("null", ""),
    "byte_size": (SIZE_SUCH_AS, ""),
    "byte_size_unit": (SIZE_SUCH_AS, ""),
    "time_delta_type": (DURATION_SUCH_AS, ""),
    "time_delta_parsing": (DURATION_SUCH_AS, ""),
    "date_type": ("a date", "2026-01-31"),
    "datetime_type": ("a time", "2026-01-31 12:00:00"),
    "uuid_type": ("a UUID", "123e4567-e89b-12d3-a456-426614174000"),
}
BOUNDS = {  # the key of the bound, its words, and the distance of the example from it
    "greater_than": ("gt", "more than", 1),
    "greater_than_equal": ("ge", "at least", 0),
    "less_than": ("lt", "less than", -1),
    "less_than_equal": ("le", "at most", 0),
}
LENGTHS = {
    "too_short": ("min_length", "a list or a mapping with at least {}", "value"),
    "too_long": ("max_length", "a list or a mapping with at most {}", "value"),
    "string_too_short": ("min_length", "a text of at least {}", "character"),
    "string_too_long": ("max_length", "a text of at most {}", "character"),
}
NAMES = {None: "null", True: "true", False: "false"}
YAML = {  # by a part of PyYAML's or libyaml's message
    "mapping values are not allowed": "there is an extra colon; put a text that contains ': ' in quotes",
    "expected ':'": "a colon is missing, as in 'key: value', or a quote or a bracket is not closed",
    "',' or": "a bracket is not closed, or a comma is missing, as in [a, b] and {a: 1, b: 2}",
    "expected '-'": "all lines of a list must begin with '- ', with the same indentation",
    "expected key": "this line is not aligned with the others of its mapping; indent them equally",
    "block end": "this line is not aligned with the others of its mapping; indent them equally",
    "node content": "a value is missing, or begins with a character that needs quotes, as in '%5'",
    "cannot start any token": "a tab, or a character that needs quotes, as in '@home'; indent with spaces",
    "end of stream": "a quote is not closed",
    "escape": "in double quotes a backslash begins an escape such as \\n; use single quotes",
    "block sequence entries": "a list must begin on its own line, with '- '",
    "document start": "there is text after the end of the document; indent it, or put it in quotes",
    "control character": 'a control character; write it as an escape in double quotes, such as "\\t"',
    "special character": 'a control character; write it as an escape in double quotes, such as "\\t"',
    "tag": "tags are not supported; write a plain value, and put a text that begins with ! in quotes",
}


def explain(detail: ErrorDetails, field: FieldInfo | None = None) -> str:
    """What the value must be, with an example and the given value: the end of a sentence, without a full stop.

    `field` is the field whose whole value is wrong, if there is one; its default is then the example.
    """
    if detail["type"] in ("value_error", "assertion_error"):  # raised by our code, or by a plugin
        message = str(detail.get("ctx", {}).get("error", "")) or "is not allowed"
        return message[0].lower() + message[1:].removesuffix(".")
    # pydantic reports the length of a secret as that of a list.
    prefix = "string_" if _is_secret(field) and detail["type"] in ("too_short", "too_long") else ""
    what, example = _requirement(prefix + detail["type"], detail.get("ctx", {}))
    if detail["type"] in BOUNDS or "number" in what:
        example = _default(field) or example
    such_as = f", such as {example}" if example else ""
    return f"must be {what}{such_as}{_got(detail['input'], field)}"


def join_alternatives(sentences: Iterable[str]) -> str:
    """One sentence from several that each give a form that the value may have."""
    first, *others = dict.fromkeys(sentences)
    if not others:
        return first
    shortened = [re.sub(r" \(got .*\)$|, not '.*'$", "", sentence) for sentence in (first, *others)]
    got = next((match[0] for each in (first, *others) if (match := re.search(r" \(got .*\)$", each))), "")
    return shortened[0] + "".join(f", or {each.removeprefix('must be ')}" for each in shortened[1:]) + got


def explain_yaml(problem: str) -> str:
    """Why a text is not valid YAML, and the remedy. `problem` is the parser's message."""
    explanations = (sentence for part, sentence in YAML.items() if part in problem)
    return next(explanations, "it cannot be parsed from here on; check its indentation, colons, quotes and brackets")


def _requirement(kind: str, context: Mapping[str, Any]) -> tuple[str, str]:
    """What the value must be, and an example, by pydantic's type of an error."""
    if kind in WHAT:
        return WHAT[kind]
    if kind in BOUNDS:
        key, words, beside = BOUNDS[kind]
        return f"{words} {_plain(context[key])}", _plain(context[key] + beside)
    if kind in LENGTHS:
        key, words, unit = LENGTHS[kind]
        return words.format(f"{context[key]} {unit}{'' if context[key] == 1 else 's'}"), ""
    if kind in ("literal_error", "enum"):
        known = re.findall("'([^']*)'", context["expected"]) or [context["expected"]]
        return f"one of {', '.join(known)}", ""
    if kind == "string_pattern_mismatch":
        return f"a text of the form {context['pattern']}", ""
    if kind in ("is_instance_of", "is_subclass_of"):
        name = context.get("class", "")
        return ("a list", "[a, b]") if name == "Sequence" else (f"a value of the type {name}", "")
    return "of another form", ""


def _default(field: FieldInfo | None) -> str:
    """The field's default as a user would write it; "" if it is not a number or a size."""
    default = field.default if field is not None else None
    if isinstance(default, ByteSize):
        return default.human_readable()
    return _plain(default) if isinstance(default, int | float) and not isinstance(default, bool) else ""


def _plain(value: Any) -> str:
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _is_secret(field: FieldInfo | None) -> bool:
    return field is not None and SecretStr.__name__ in str(field.annotation)


def _got(value: Any, field: FieldInfo | None) -> str:
    """The given value in brackets; for a long list or mapping its length, and nothing for a secret."""
    if _is_secret(field):
        return ""
    shown = NAMES[value] if value is None or isinstance(value, bool) else repr(value)
    if len(shown) > MOST:
        shown = f"{len(value)} values" if isinstance(value, list | dict) else f"{shown[: MOST - 3]}…"
    return f" (got {shown})"
