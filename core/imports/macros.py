"""llama-swap's macros: `${name}`, in which other macros may stand, and `${env.NAME}`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..config.strict_yaml import Document, Path_

MACRO = re.compile(r"\$\{([A-Za-z0-9_-]+)\}")
ENVIRONMENT = re.compile(r"\$\{env\.([A-Za-z_][A-Za-z0-9_]*)\}")
MAX_LENGTH = 10_000
Macros = Mapping[str, str]


def expand(
    text: str, macros: Macros, ours: Macros, document: Document, where: Path_, within: tuple[str, ...] = ()
) -> str:
    """The text with the macros replaced, and the names in `ours` by what we write for them.

    Raises YamlError, at `where`, for an unknown macro, one that contains itself, and too long a text.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name in ours:
            return ours[name]
        if name in within:
            raise document.error(where, f"the macro '{name}' contains itself.")
        if name not in macros:
            raise document.error(where, f"there is no macro '{name}'; macros: {', '.join([*macros, *ours])}.")
        return expand(macros[name], macros, ours, document, where, (*within, name))

    expanded = MACRO.sub(value, text)
    if len(expanded) > MAX_LENGTH:
        raise document.error(where, f"is longer than {MAX_LENGTH} characters when its macros are replaced.")
    return expanded


def variables_in(text: str) -> list[str]:
    """The names in `${env.NAME}`."""
    return ENVIRONMENT.findall(text)


def our_variables(text: str) -> str:
    """The text with `${env.NAME}` as we write it, to be read when the model is loaded."""
    return ENVIRONMENT.sub(r"${\1}", text)
