"""The keys of a llama-swap file that mean something to us, and sentences about those that do not."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

KEYS = ConfigDict(extra="allow", frozen=True)
DEFAULT_PROXY = "http://localhost:${PORT}"


def _as_text(value: Any) -> Any:
    """Numbers and truth values as the text that they were."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


def _name_of_alias(value: Any) -> Any:
    return _as_text(value["id"] if isinstance(value, dict) and "id" in value else value)


def _none_as_empty(value: Any) -> Any:
    return {} if value is None else value


Text = Annotated[str, BeforeValidator(_as_text)]
MacroValues = Annotated[dict[str, Any], BeforeValidator(_none_as_empty)]


class SwapModel(BaseModel):
    """A model of llama-swap's."""

    model_config = KEYS

    cmd: Text
    cmd_stop: Annotated[Text, Field(alias="cmdStop")] = ""
    proxy: Text = DEFAULT_PROXY
    check_endpoint: Annotated[Text, Field(alias="checkEndpoint")] = "/health"
    ttl: int = -1
    env: list[Text] = []
    aliases: list[Annotated[str, BeforeValidator(_name_of_alias)]] = []
    macros: MacroValues = {}
    concurrency_limit: Annotated[int, Field(alias="concurrencyLimit", ge=0)] = 0


class Group(BaseModel):
    """Models that may, or may not, be in memory together."""

    model_config = KEYS

    swap: bool = True
    exclusive: bool = True
    persistent: bool = False
    members: list[Text] = []


class _OnStartup(BaseModel):
    model_config = KEYS

    preload: list[Text] = []


class _Hooks(BaseModel):
    model_config = KEYS

    on_startup: _OnStartup = _OnStartup()


class _RouterSettings(BaseModel):
    model_config = KEYS

    groups: dict[str, Group] = {}


class _Router(BaseModel):
    model_config = KEYS

    settings: _RouterSettings = _RouterSettings()


class _Routing(BaseModel):
    model_config = KEYS

    router: _Router = _Router()


class SwapFile(BaseModel):
    """A llama-swap file."""

    model_config = KEYS

    models: Annotated[dict[str, SwapModel], Field(min_length=1)]
    health_check_timeout: Annotated[int, Field(alias="healthCheckTimeout")] = 120
    global_ttl: Annotated[int, Field(alias="globalTTL", ge=0)] = 0
    macros: MacroValues = {}
    groups: dict[str, Group] = {}
    hooks: _Hooks = _Hooks()
    routing: _Routing = _Routing()


OF_MODEL = {  # keys of a model that are left out
    "useModelName": "is left out: a request reaches the server as the client sent it, with its own 'model'. Most"
    " servers of one model accept any name; else start the server with that name.",
    "filters": "are left out: a request reaches the server as the client sent it.",
    "name": "is left out: /v1/models lists ids and aliases only.",
    "description": "is left out: /v1/models lists ids and aliases only.",
    "metadata": "is left out: /v1/models lists ids and aliases only.",
    "capabilities": "are left out: /v1/models lists ids and aliases only.",
    "unlisted": "is left out: /v1/models lists every model.",
    "sendLoadingState": "is left out: a stream that waits for a load gets comment lines, which clients skip.",
    "timeouts": "are left out: 'request_timeout' says when a request must have begun, and an answer may take any time.",
    "unloadTimeout": "is left out: a server has 10 s to end after SIGTERM; with 'stop' it has what that command takes.",
    "healthCheckTimeout": "is left out: it is set for all models.",
}
OF_FILE = {  # keys of the file that are left out
    "apiKeys": "are left out: callers are not asked for a key. Put a proxy that asks for it in front.",
    "peers": "are left out: requests are not passed on to servers elsewhere.",
    "profiles": "are left out: models are asked for one by one.",
    "selectors": "are left out: a request names a model, or an alias of it.",
    "startPort": "is not needed: ports are chosen among the free ones.",
    "logLevel": "is left out: start the server with --log-level.",
    "logTimeFormat": "is left out: 'log: json' gives each line its time.",
    "logToStdout": "is left out: what servers write goes to the log, with the model's id.",
    "metricsMaxInMemory": "is left out: /metrics counts everything.",
    "captureBuffer": "is left out: 'capture' names a file that records times and models, not bodies.",
    "sendLoadingState": OF_MODEL["sendLoadingState"],
    "includeAliasesInList": "is not needed: /v1/models lists aliases, too.",
    "unloadTimeout": OF_MODEL["unloadTimeout"],
}
UNKNOWN = "is not known here, and was left out."
