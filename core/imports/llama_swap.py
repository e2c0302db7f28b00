"""A llama-swap file as settings of ours."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from ..config.engines import EngineChoice
from ..config.strict_yaml import Document, Path_, parse
from ..errors import YamlError
from ..system.files import read_text
from . import anchors
from .commands import Command, read_command
from .groups import Together, together
from .llama_swap_file import OF_FILE, OF_MODEL, UNKNOWN, SwapFile, SwapModel
from .macros import Macros, expand, our_variables, variables_in
from .notes import Note, Notes

MAX_BYTES = 1 << 20
LEAST_WITHIN, USUAL_WITHIN = 15, 120  # seconds that llama-swap waits at least, and by default
MAX_WITHIN = 3600
LOCAL = frozenset({"localhost", "127.0.0.1", "0.0.0.0", "::1"})  # noqa: S104  # compared, not bound
NO_CHECK, INSTEAD = "none", "/v1/models"
NOT_IN_IDS = re.compile(r"[^A-Za-z0-9._-]+")
MAX_ID = 64
CARRIED = {field.alias or name for name, field in SwapModel.model_fields.items()}
READ = {field.alias or name for name, field in SwapFile.model_fields.items()} | {"matrix"}


class Imported(NamedTuple):
    """Settings that a llama-swap file becomes, and what it says that they cannot."""

    models: dict[str, EngineChoice]
    names: dict[str, str]
    """What the file calls each model, by our id."""
    ttls: dict[str, float | None]
    """Seconds by model id; None: never."""
    pinned: list[str]
    preloaded: list[str]
    capacity: int | None
    """Models in memory at most; None if all of them may be."""
    within: float
    """Seconds of the longest load."""
    notes: list[Note]


def read_llama_swap(path: Path, *, by_memory: bool) -> Imported:
    """What the file becomes; `by_memory`, a budget says how many models stay.

    Raises FileError, or YamlError for a file that llama-swap would refuse, too.
    """
    text = read_text(path, MAX_BYTES, "split it")
    document = anchors.merge(parse(text, path, anchors.expand))
    if isinstance(document.value, dict) and "models" not in document.value:
        raise YamlError(f"{path}: has no 'models', so it is not a llama-swap file.")
    return _Import(document).result(by_memory)


class _Import:
    def __init__(self, document: Document) -> None:
        self._document = document
        self._file = document.validate(SwapFile)
        self._notes = Notes(document)
        self._ids = safe_ids(self._file.models)

    def result(self, by_memory: bool) -> Imported:
        self._check_aliases()
        within = float(min(max(self._file.health_check_timeout, LEAST_WITHIN), MAX_WITHIN))
        models = {self._ids[name]: self._engine(name, model, within) for name, model in self._file.models.items()}
        for key in self._document.value:
            if key not in READ:
                self._notes.add((key,), OF_FILE.get(key, UNKNOWN))
        groups: Together = together(self._file, self._document, self._notes, by_memory=by_memory)
        return Imported(
            models,
            {model_id: name for name, model_id in self._ids.items()},
            {self._ids[name]: self._ttl(model) for name, model in self._file.models.items()},
            [self._ids[name] for name in groups.persistent],
            list(dict.fromkeys(self._preloaded())),
            groups.capacity,
            within,
            self._notes.in_order(),
        )

    def _ttl(self, model: SwapModel) -> float | None:
        seconds = self._file.global_ttl if model.ttl < 0 else model.ttl
        return float(seconds) if seconds else None

    def _preloaded(self) -> Iterator[str]:
        for i, name in enumerate(self._file.hooks.on_startup.preload):
            real = self._real_name(name.strip())
            if real is None:
                self._notes.add(("hooks", "on_startup", "preload", i), "is left out: there is no such model.")
            else:
                yield self._ids[real]

    def _real_name(self, name: str) -> str | None:
        if name in self._file.models:
            return name
        return next((real for real, model in self._file.models.items() if name in model.aliases), None)

    def _check_aliases(self) -> None:
        owners: dict[str, str] = {}
        for name, model in self._file.models.items():
            for i, alias in enumerate(model.aliases):
                where = ("models", name, "aliases", i)
                if alias in owners and owners[alias] != name:
                    raise self._document.error(where, f"'{alias[:80]}' is an alias of '{owners[alias]}', too.")
                if alias in self._file.models and alias != name:
                    raise self._document.error(where, f"'{alias[:80]}' is the name of another model.")
                owners[alias] = name

    def _engine(self, name: str, model: SwapModel, within: float) -> EngineChoice:
        """The model as we start it. What cannot be carried over is noted."""
        where: Path_ = ("models", name)
        macros = _macros(self._file.macros) | _macros(model.macros)
        model_id = self._ids[name]
        ours = {"PORT": "${port}", "MODEL_ID": "${model}" if model_id == name else name}
        command = self._command(model.cmd, macros, ours, (*where, "cmd"))
        proxy = self._expanded(model.proxy, macros, ours, (*where, "proxy"))
        command, port = self._with_port(command, proxy, where)
        self._note_lost(name, model, command)
        stop = self._stop(model, macros, ours, where)
        if stop is None:
            command, stopping = command.with_container_stop()
            stop = None if stopping is None else str(stopping)
        given = {
            "run": str(command),
            "port": port,
            "ready": self._ready(model, macros, ours, where),
            "within": within,
            "environment": self._environment(model, command, where),
            "aliases": self._aliases(name, model),
            "parallel": model.concurrency_limit,
            "stop": stop,
        }
        fields = EngineChoice.model_fields
        kept = {key: value for key, value in given.items() if value and value != fields[key].default}
        try:
            return EngineChoice.model_validate(kept)
        except ValueError as error:
            raise self._document.error(where, f"cannot be carried over: {error}") from error

    def _expanded(self, text: str, macros: Macros, ours: Macros, where: Path_) -> str:
        for variable in variables_in(text):
            if variable not in os.environ:
                self._notes.add(where, f"uses the variable {variable}, which is not set here; set it for the server.")
        return expand(text, macros, ours, self._document, where)

    def _command(self, text: str, macros: Macros, ours: Macros, where: Path_) -> Command:
        lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
        expanded = self._expanded("\n".join(lines), macros, ours, where)
        for variable in variables_in(expanded):
            if variable not in os.environ:
                self._notes.add(where, f"uses the variable {variable}, which is not set here; set it for the server.")
        try:
            return read_command(our_variables(expanded))
        except ValueError as error:
            problem = "a quotation is not closed" if "quotation" in str(error) else "it holds no command"
            raise self._document.error(where, f"cannot be split into words: {problem}.") from error

    def _with_port(self, command: Command, proxy: str, where: Path_) -> tuple[Command, int | None]:
        """The command with `${port}` if it can have it, else the port on which it listens.

        With one fixed port, two copies of a server could not run, and each node has its own.
        """
        if any("${port}" in word for word in command.words):
            return command, None
        if "${port}" in proxy:
            raise self._document.error((*where, "cmd"), "must hold ${PORT}, or 'proxy' must name the port.")
        try:
            url = urlsplit(proxy)
            host, port = url.hostname or "", url.port or 80
        except ValueError as error:
            raise self._document.error((*where, "proxy"), "must be a URL such as http://localhost:8080.") from error
        here = (*where, "proxy")
        if host not in LOCAL:
            self._notes.add(here, f"is {proxy}: requests go to this machine, so {host} must be another name of it.")
        if (replaced := command.with_our_port(port)) is not None:
            self._notes.add(here, f"the port {port} became ${{port}}, a free one for each copy of the server.")
            return replaced, None
        self._notes.add(here, f"the port {port} is fixed, as 'cmd' does not hold it, so one copy can run at a time.")
        return command, port

    def _ready(self, model: SwapModel, macros: Macros, ours: Macros, where: Path_) -> str:
        path = self._expanded(model.check_endpoint, macros, ours, (*where, "checkEndpoint")).strip()
        if path != NO_CHECK:
            return path if path.startswith("/") else f"/{path}"
        self._notes.add(
            (*where, "checkEndpoint"), f"became {INSTEAD}: a server must say that it is ready. Name a path it answers."
        )
        return INSTEAD

    def _environment(self, model: SwapModel, command: Command, where: Path_) -> dict[str, str]:
        found: dict[str, str] = {}
        for i, text in enumerate(model.env):
            variable, equals, value = text.partition("=")
            if not equals or not variable:
                raise self._document.error((*where, "env", i), "must be of the form NAME=value.")
            if variables_in(value):
                value = self._from_environment(value, (*where, "env", i))
            found[variable] = value
        if command.environment:
            names = ", ".join(command.environment)
            self._notes.add((*where, "cmd"), f"{names} stood before the command, and became 'environment'.")
        return found | command.environment

    def _from_environment(self, value: str, where: Path_) -> str:
        """The value as it is now: a variable of an engine is written out."""
        for variable in variables_in(value):
            if variable not in os.environ:
                raise self._document.error(where, f"the variable {variable} is not set.")
            value = value.replace(f"${{env.{variable}}}", os.environ[variable])
        self._notes.add(where, "holds the value that its variable has now.")
        return value

    def _aliases(self, name: str, model: SwapModel) -> list[str]:
        own = [] if self._ids[name] == name else [name]
        return list(dict.fromkeys([*own, *(alias for alias in model.aliases if alias != self._ids[name])]))

    def _stop(self, model: SwapModel, macros: Macros, ours: Macros, where: Path_) -> str | None:
        here = (*where, "cmdStop")
        text = "\n".join(line for line in model.cmd_stop.splitlines() if not line.lstrip().startswith("#")).strip()
        if not text:
            return None
        if "${PID}" in text:
            self._notes.add(
                here, "is left out, because it names ${PID}: the server gets SIGTERM, and SIGKILL 10 s later."
            )
            return None
        return str(self._command(text, macros, ours, here))

    def _note_lost(self, name: str, model: SwapModel, command: Command) -> None:
        where: Path_ = ("models", name)
        if self._ids[name] != name:
            self._notes.add(
                where, f"is called '{self._ids[name]}', because ids are parts of URLs; its name is an alias."
            )
        for key in self._document.value["models"][name]:
            if key not in CARRIED:
                self._notes.add((*where, key), OF_MODEL.get(key, UNKNOWN))
        variants = (model.model_extra or {}).get("filters")
        if isinstance(variants, dict) and isinstance(by_id := variants.get("setParamsByID"), dict):
            names = ", ".join(f"'{variant}'" for variant in by_id)
            self._notes.add((*where, "filters", "setParamsByID"), f"is left out, so there are no models {names}.")
        if words := command.shell_words:
            self._notes.add((*where, "cmd"), f"is not given to a shell, here and in llama-swap: {words[0]} is a word.")
        if command.is_container:
            sentence = (
                "runs in a container, whose memory cannot be measured: add its size, as in memory: {fixed: 3GiB}."
            )
            self._notes.add((*where, "cmd"), sentence)


def _macros(values: Mapping[str, object]) -> dict[str, str]:
    """The macros that can stand in a text. Those that are mappings serve filters only."""
    texts: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, bool):
            texts[name] = str(value).lower()
        elif isinstance(value, str | int | float):
            texts[name] = str(value)
    return texts


def safe_ids(names: Mapping[str, object]) -> dict[str, str]:
    """An id of ours for each name: the name itself where it can stand in a URL."""
    taken = {name for name in names if name and _safe(name) == name}
    ids: dict[str, str] = {}
    for name in names:
        wanted = candidate = _safe(name)
        number = 2
        while name != candidate and candidate in taken:
            ending = f"-{number}"
            candidate, number = wanted[: MAX_ID - len(ending)] + ending, number + 1
        taken.add(candidate)
        ids[name] = candidate
    return ids


def _safe(name: str) -> str:
    return NOT_IN_IDS.sub("-", name).strip("-._")[:MAX_ID] or "model"
