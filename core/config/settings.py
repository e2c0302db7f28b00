"""The settings of a served app: `RESIDENCY_*` variables override the YAML file that `RESIDENCY_CONFIG` names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ByteSize, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, InitSettingsSource, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from ..checkpoints.references import resolve_reference
from ..errors import SettingsError, YamlError
from ..system.files import resolve_path
from .choices import Batching, BatchingChoice, Cost, Duration, ModelId, Size, StrategyChoice
from .cluster import ClusterSettings
from .engines import ModelChoice
from .file_kinds import check_kind
from .strict_yaml import Document, parse, read
from .variables import PREFIX, check, residency_variables
from .wrong_values import explain

CONFIG = f"{PREFIX}CONFIG"
ELSEWHERE = {  # variables that are no field of the settings: their defaults, and what they mean
    "CONFIG": ("none", "The file of settings."),
    "CACHE": (
        "`~/.cache/residency`",
        "The cache of converted and synthetic checkpoints. A container's user without a home directory must set it.",
    ),
}


class Settings(BaseSettings):
    """What to serve, and the limits of a request. The docstrings of the fields are the reference in docs/serving.md."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True)

    strategies: Annotated[list[StrategyChoice], NoDecode] | None = None
    """The strategies to mount, each a name or a mapping with `strategy`, `options` and `loader`."""
    models: Annotated[dict[ModelId, ModelChoice], NoDecode, Field(min_length=1)] = {"embedded": "embedded"}
    """Model ids with their references, or with a mapping that has `run`: an engine. By default, the embedded model."""
    default: str | None = None
    """The model of requests that name none."""
    plugins: Annotated[list[str], NoDecode] = []
    """Modules or `.py` files. The server runs their code."""
    max_body: Size = ByteSize(2 << 20)
    """Bytes of a body."""
    max_header: Annotated[Size, Field(ge=1024)] = ByteSize(32 << 10)
    """Bytes of a request's head."""
    max_texts: Annotated[int, Field(ge=1)] = 256
    """Texts in a body."""
    max_text: Annotated[int, Field(ge=1)] = 100_000
    """Characters of each text."""
    batching: Annotated[BatchingChoice, NoDecode] = Batching()
    """How requests that wait for the same model are computed together: `on`, `off`, or a mapping."""
    max_queue: Annotated[int, Field(ge=1)] = 128
    """Queue slots for each model under each strategy: requests that wait or are being computed. If none is free, the
    answer is 503.
    """
    max_queue_bytes: Size = ByteSize(64 << 20)
    """Bytes of all bodies that are being read, or wait, at a time. Above it, the answer is 503."""
    allowed_hosts: Annotated[list[str], NoDecode] = []
    """Names in the `Host` header that the server answers. Without any, it answers every name."""
    cluster: Annotated[ClusterSettings | None, NoDecode] = None
    """Several nodes behind a balancer, such as `{nodes: 2}`. A single server ignores all of it but `secret`."""
    token: Annotated[SecretStr, Field(min_length=16)] | None = None
    """If set, callers with this token can load and unload models manually, and change settings without a restart. At
    least 16 characters.
    """
    log: Literal["text", "json"] = "text"
    """`json`: each line is an object, and each request has a line with its id and what it cost."""
    cost: Annotated[Cost | None, NoDecode] = None
    """Prices as in an experiment, for strategies that use prices and are given none: `{memory_gib_hour: 0.005}`."""
    state: Path | None = None
    """A file that keeps what strategies have learned across a restart. The server writes it at the end, and every
    minute.
    """
    capture: Path | None = None
    """A file to which the server appends the time and model id of each request: a trace. logrotate may rename, delete
    or cut it.
    """
    request_timeout: Annotated[Duration, Field(gt=0, le=3600)] = 30.0
    """A request must begin within this time."""
    receive_timeout: Annotated[Duration, Field(gt=0, le=3600)] = 20.0
    """A request must be complete within this time."""
    shutdown_timeout: Annotated[Duration, Field(ge=0, le=3600)] = 30.0
    """Accepted requests have this time to be answered at shutdown."""

    @field_validator("strategies", "models", "plugins", "allowed_hosts", mode="before")
    @classmethod
    def _from_variable(cls, value: Any, info: ValidationInfo) -> Any:
        """Parse the YAML in a variable; one or several words, separated by commas, are a list."""
        if not isinstance(value, str):
            return value
        parsed = parse(value, _variable(info)).value
        return [word.strip() for word in parsed.split(",")] if isinstance(parsed, str) else parsed

    @field_validator("default")
    @classmethod
    def _is_a_model(cls, value: str | None, info: ValidationInfo) -> str | None:
        models = info.data.get("models")  # None if `models` is itself invalid
        if value is not None and models is not None and value not in models:
            raise ValueError(f"must be one of the ids in 'models', not {value[:100]!r}")
        return value

    @field_validator("batching", "cost", "cluster", mode="before")
    @classmethod
    def _mapping_from_variable(cls, value: Any, info: ValidationInfo) -> Any:
        return parse(value, _variable(info)).value if isinstance(value, str) else value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, InitSettingsSource(settings_cls, file_values())


def _variable(info: ValidationInfo) -> Path:
    """The variable of a field, for use as the path in errors."""
    return Path(f"{PREFIX}{(info.field_name or '').upper()}")


def settings_from_environment() -> Settings:
    """The settings of this process.

    Raises SettingsError or YamlError, which name the variable, or the file with line and key.
    """
    check({PREFIX + name.upper() for name in (*Settings.model_fields, *ELSEWHERE)})
    try:
        return Settings()
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        field = str(detail["loc"][0]) if detail["loc"] else ""
        variable = PREFIX + field.upper()
        if variable not in residency_variables() and (document := _file()):
            raise document.invalid([detail], Settings) from error
        raise SettingsError(f"{variable}: {explain(detail, Settings.model_fields.get(field))}.") from error


def configured_by() -> str:
    """The file and the variables that `settings_from_environment` reads, for the log."""
    name = os.environ.get(CONFIG)
    file = [str(resolve_path(name, Path.cwd()))] if name else []
    return ", ".join([*file, *sorted(residency_variables() - {CONFIG})]) or "nothing but defaults"


def _file() -> Document | None:
    name = os.environ.get(CONFIG)
    return read(resolve_path(name, Path.cwd())) if name else None


def file_values() -> dict[str, Any]:
    """The values of the file that `RESIDENCY_CONFIG` names, with relative paths made absolute from its folder."""
    document = _file()
    if document is None or document.value is None:
        return {}
    check_kind(document, "settings")
    values = document.value
    if not isinstance(values, dict):
        raise YamlError(f"{document.path}: must be a mapping with the keys {', '.join(Settings.model_fields)}.")
    folder = document.path.resolve().parent
    if isinstance(models := values.get("models"), dict):
        values["models"] = {
            model_id: resolve_reference(reference, folder) if isinstance(reference, str) else reference
            for model_id, reference in models.items()
        }
    for key in ("capture", "state"):
        if isinstance(file := values.get(key), str):
            values[key] = str(resolve_path(file, folder))
    if isinstance(plugins := values.get("plugins"), list):
        values["plugins"] = [
            str(resolve_path(p, folder)) if isinstance(p, str) and p.endswith(".py") else p for p in plugins
        ]
    return values
