"""llama-swap's commands: lines with comments and continuations, which become one command of ours."""

from __future__ import annotations

import re
import shlex
from typing import NamedTuple

ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
SHELL_WORDS = frozenset({"|", "||", "&", "&&", ";", ">", ">>", "<", "2>&1", "2>", "&>"})
PLAIN = re.compile(r"[^\s'\"\\]+")
CONTAINERS = frozenset({"docker", "podman", "nerdctl", "toolbox", "distrobox", "docker-compose"})
NAME = re.compile(r"--name(?:=(.+))?")
OUR_NAME = "${model}-${port}"  # of each copy of a server
PORT = re.compile(r"(?<![0-9.])(\d{2,5})(?![0-9])")
OUR_PORT = "${port}"


class Command(NamedTuple):
    """The words of a command, and the variables that are set before its first word."""

    words: list[str]
    environment: dict[str, str]

    def __str__(self) -> str:
        return " ".join(word if PLAIN.fullmatch(word) else shlex.quote(word) for word in self.words)

    @property
    def shell_words(self) -> list[str]:
        """The words that only a shell would understand."""
        return [word for word in self.words if word in SHELL_WORDS]

    @property
    def is_container(self) -> bool:
        """Whether the server will run in a container, whose memory and port are not those of our child."""
        return any(word.rpartition("/")[2] in CONTAINERS for word in self.words[:2])

    def with_container_stop(self) -> tuple[Command, Command | None]:
        """The command, whose container has a name, and the command that stops it; None if it runs no container."""
        program, *rest = self.words
        if not self.is_container or rest[:1] != ["run"]:
            return self, None
        for word, following in zip(rest, [*rest[1:], ""], strict=True):
            if match := NAME.fullmatch(word):
                return self, Command([program, "stop", match[1] or following], {})
        named = self._replace(words=[program, "run", "--name", OUR_NAME, *rest[1:]])
        return named, Command([program, "stop", OUR_NAME], {})

    def with_our_port(self, port: int) -> Command | None:
        """The command with `${port}` in place of `port`; None if `port` does not stand in it.

        Of `-p 9000:8080` the first is meant, so only the first occurrence in a word is replaced.
        """
        found = False
        words = []
        for word in self.words:
            match = next((match for match in PORT.finditer(word) if int(match[1]) == port), None)
            found |= match is not None
            words.append(word if match is None else word[: match.start()] + OUR_PORT + word[match.end() :])
        return self._replace(words=words) if found else None


def read_command(text: str) -> Command:
    """The command in a text of several lines. Raises ValueError for an open quotation, or if it is empty."""
    lines = []
    for line in text.splitlines():
        stripped = line.strip()
        if not stripped.startswith("#"):
            lines.append(stripped.removesuffix("\\"))
    words = shlex.split("\n".join(lines))
    environment: dict[str, str] = {}
    if words and words[0] == "env" and len(words) > 1 and ASSIGNMENT.fullmatch(words[1]):
        words.pop(0)
    while words and (match := ASSIGNMENT.fullmatch(words[0])):
        environment[match[1]] = match[2]
        words.pop(0)
    if not words:
        raise ValueError("holds no command")
    return Command(words, environment)
