"""The commands of an engine as words, with their macros replaced."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Mapping, Sequence

from ...errors import EngineFailed

MACRO = re.compile(r"\$(\$\{)|\$\{([^}]*)\}")


def words(command: str, values: Mapping[str, str]) -> list[str]:
    """The words of the command, as a shell would split them, each `${NAME}` replaced by its value.

    A value is never split itself. `$${` stands for `${`. Raises EngineFailed for a name without a value.
    """

    def value(match: re.Match[str]) -> str:
        if match[1]:
            return match[1]
        if match[2] not in values:
            raise EngineFailed(
                f"its command has ${{{match[2]}}}, but no variable of that name is set. Set it under 'environment',"
                " or in the environment of the server.",
                "its command needs a variable that is not set; the log says which.",
            )
        return values[match[2]]

    joined = command.replace("\\\n", " ")  # a backslash at the end of a line continues it
    return [MACRO.sub(value, word) for word in shlex.split(joined)]


def check_program(command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Raise EngineFailed if there is no such program."""
    if shutil.which(command[0], path=environment.get("PATH")) is None:
        raise EngineFailed(
            f"there is no program '{command[0]}'. Install it, or write its whole path at the beginning of 'run'.",
            "its program is not installed; the log says which.",
        )
