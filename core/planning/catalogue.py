"""Models with the ids that a trace names: their sizes, and profiles derived from models of other sizes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, Discriminator, Field, Tag, model_validator

from ..bench.trace_file import columns_in_words, read_lines
from ..config.choices import STRICT, Size
from ..errors import FileError
from ..results.plan_findings import LoadsBySize
from ..system.files import resolve_path
from .by_size import Loads, loads_of
from .profile import ModelProfile, Profile

MOST_MODELS = 10_000
MIB = 1 << 20
UNITS = {"B": 1 / MIB, "MB": 1e6 / MIB, "MiB": 1.0, "GB": 1e9 / MIB, "GiB": 1024.0}
SHOWN = 5  # models that a sentence lists
NAME_COLUMN = "Name the column of the sizes, as in sizes: {file: "


class SizesFile(BaseModel):
    """A CSV or JSONL file with a size for each model, or its path."""

    model_config = STRICT

    file: Annotated[str, Field(min_length=1)]
    """The path. Its column `model` has the ids."""
    column: Annotated[str, Field(min_length=1)] = "mib"
    """The column of the sizes."""
    unit: Literal["B", "MB", "MiB", "GB", "GiB"] = "MiB"
    """Their unit."""

    @model_validator(mode="before")
    @classmethod
    def _from_path(cls, value: Any) -> Any:
        return {"file": value} if isinstance(value, str) else value


class DrawnSizes(BaseModel):
    """Sizes that are drawn, each from the plan's seed and the model's id."""

    model_config = STRICT

    log_uniform: Annotated[list[Annotated[Size, Field(gt=0)]], Field(min_length=2, max_length=2)]
    """The least and the most; the logarithm of a size is uniform between theirs."""

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        low, high = self.log_uniform
        if low > high:
            raise ValueError("log_uniform must begin with the smaller size, such as [40MiB, 1.3GiB]")
        return self


def _check_true(value: Any) -> Any:
    if value is not True:
        raise ValueError("must be true; to plan for a number of models, write models: 20")
    return value


def _check_sizes(value: Any) -> Any:
    is_of_one_kind = isinstance(value, dict) and (set(value) == {"log_uniform"} or "file" in value)
    if is_of_one_kind or isinstance(value, str | BaseModel):
        return value
    raise ValueError(
        "must be the path of a file with sizes, a mapping such as {file: sizes.csv, column: mib}, or"
        " {log_uniform: [40MiB, 1.3GiB]} without other keys"
    )


def _kind_of_sizes(value: Any) -> str:
    is_drawn = isinstance(value, DrawnSizes) or (isinstance(value, dict) and set(value) == {"log_uniform"})
    return "drawn sizes" if is_drawn else "file of sizes"


class TraceModels(BaseModel):
    """Models with the ids that the trace names."""

    model_config = STRICT

    trace: Annotated[bool, BeforeValidator(_check_true)]
    """`true`: the models are those that the trace names."""
    sizes: Annotated[
        Annotated[SizesFile, Tag("file of sizes")] | Annotated[DrawnSizes, Tag("drawn sizes")],
        Discriminator(_kind_of_sizes),
        BeforeValidator(_check_sizes),
    ]
    """Of their weights: a file, or `{log_uniform: [40MiB, 1.3GiB]}`."""


def sizes_of(sizes: SizesFile | DrawnSizes, models: Sequence[str], seed: int, folder: Path) -> dict[str, float]:
    """MiB of weights of each of these models; paths are relative to `folder`.

    A drawn size depends on the seed and the model's id alone, so it stays the same when another part of the trace is
    used. Raises FileError for a file that cannot be read, and for a model without a size.
    """
    if isinstance(sizes, DrawnSizes):
        low, high = (math.log(size / MIB) for size in sizes.log_uniform)
        return {model: math.exp(low + (high - low) * _uniform(f"{seed}/{model}")) for model in models}
    path = resolve_path(sizes.file, folder)
    known = _sizes_in(path, sizes.column, UNITS[sizes.unit])
    if lacking := [model for model in models if model not in known]:
        listed = ", ".join(f"'{model}'" for model in lacking[:SHOWN]) + (", …" if len(lacking) > SHOWN else "")
        raise FileError(f"{path}: has no size for {len(lacking)} of the trace's models; add a row for each: {listed}.")
    return {model: known[model] for model in models}


def _uniform(text: str) -> float:
    """A number from 0 to 1, always the same for one text."""
    return int.from_bytes(sha256(text.encode()).digest()[:8]) / 2**64


def _sizes_in(path: Path, column: str, unit: float) -> dict[str, float]:
    """MiB by model id. Raises FileError, which names file and line."""
    found: dict[str, float] = {}
    for line, fields in read_lines(path, "a list of sizes"):
        for name in ("model", column):
            if fields.get(name) in (None, ""):
                remedy = (
                    "Call the column of the ids 'model'."
                    if name == "model"
                    else f"{NAME_COLUMN}{path.name}, column: …}}."
                )
                raise FileError(f"{path}:{line}: has no '{name}'; it has {columns_in_words(fields)}. {remedy}")
        model, mib = str(fields["model"]), _positive(fields[column])
        if mib is None:
            raise FileError(
                f"{path}:{line}: {str(fields[column])[:60]!r} is not the size of '{model}'; write a number above 0."
            )
        if model in found:
            raise FileError(f"{path}:{line}: gives the size of '{model}' again; keep one.")
        found[model] = mib * unit
    return found


def _positive(value: Any) -> float | None:
    """A finite number above 0; else None."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if 0 < number < math.inf and not isinstance(value, bool) else None


def of_sizes(profile: Profile, sizes: Mapping[str, float]) -> Profile:
    """A profile of models of these sizes. Their loads lie on a line through those of the run's models; their forward
    passes are those of the run's model that is nearest in size.

    Raises ResultsError if loads of only one size were measured.
    """
    own = profile.models
    weights = {name: model.weights_mib for name, model in own.items()}
    loads = loads_of(profile.loads, weights, {name: model.load_cpu for name, model in own.items()})
    models = {name: _of_size(list(own.values()), loads, mib) for name, mib in sizes.items()}
    note = LoadsBySize(
        models=len(profile.loads),
        start_ms=loads.seconds.start_s * 1e3,
        ms_per_mib=loads.seconds.per_mib_s * 1e3,
        start_processor_ms=loads.processor.start_s * 1e3,
        processor_ms_per_mib=loads.processor.per_mib_s * 1e3,
        spread=loads.spread,
        measured_mib=_range(weights[name] for name in profile.loads),
        planned_mib=_range(sizes.values()),
    )
    return replace(profile, models=models, notes=(*profile.notes, note))


def _of_size(measured: Sequence[ModelProfile], loads: Loads, mib: float) -> ModelProfile:
    nearest = min(measured, key=lambda model: abs(math.log(max(model.weights_mib, 1 / MIB) / mib)))
    return replace(
        nearest,
        load=loads.ratios,
        load_unit_s=loads.seconds.at(mib),
        load_cpu=loads.processor.at(mib),
        weights_mib=mib,
        mib=nearest.mib / nearest.weights_mib * mib if nearest.weights_mib else mib,
    )


def _range(values: Iterable[float]) -> tuple[float, float]:
    """The least and the most."""
    listed = list(values)
    return min(listed), max(listed)
