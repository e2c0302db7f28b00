"""The JSON schemas of the files of a run and of a plan, and what the code says of each field."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from itertools import pairwise
from types import ModuleType
from typing import Any

from pydantic import BaseModel

from core.results import (
    answers,
    card,
    comparisons,
    economics,
    flips,
    header,
    notes,
    plan,
    plan_findings,
    plan_models,
    records,
    summary,
    warnings,
)
from core.results import figures as figures_of_trials

DRAFT = "https://json-schema.org/draft/2020-12/schema"
SUMMARY = (summary, answers, card, comparisons, economics, figures_of_trials, flips, header, notes, records, warnings)


def record_schema() -> dict[str, Any]:
    """The JSON schema of a line of `samples.jsonl`, with what the code says of each field."""
    schema = records.RECORD.json_schema()
    _describe(schema, records, header)
    return {"$schema": DRAFT, "title": "A line of samples.jsonl", **schema}


def summary_schema() -> dict[str, Any]:
    """The JSON schema of `summary.json`, with what the code says of each field."""
    return _schema_of("summary.json", summary.Summary, *SUMMARY)


def plan_schema() -> dict[str, Any]:
    """The JSON schema of `plan.json`, with what the code says of each field."""
    return _schema_of("plan.json", plan.Plan, plan, plan_findings, plan_models, flips, economics, header)


def _schema_of(title: str, cls: type[BaseModel], *modules: ModuleType) -> dict[str, Any]:
    """The JSON schema of what is written of a class; `modules` have its parts."""
    schema = cls.model_json_schema(mode="serialization")
    parts = [key for key in ("description", "properties", "required", "type") if key in schema]
    schema["$defs"][cls.__name__] = {key: schema.pop(key) for key in parts}
    _describe(schema, *modules)
    return {"$schema": DRAFT, "title": title, **schema["$defs"].pop(cls.__name__), "$defs": schema["$defs"]}


def _describe(schema: Mapping[str, Any], *modules: ModuleType) -> None:
    """Add what the classes of these modules say of their fields."""
    classes: dict[str, type[BaseModel]] = {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, BaseModel)
    }
    for name, definition in schema["$defs"].items():
        docs = field_docs(classes[name]) if name in classes else {}
        for field, text in docs.items():
            shown = classes[name].model_fields[field].alias or field
            definition["properties"][shown]["description"] = as_json_says(text)


def field_docs(cls: type[BaseModel]) -> dict[str, str]:
    """The docstrings below the fields of a class and of those that it inherits from, by field."""
    docs: dict[str, str] = {}
    for each in reversed(cls.__mro__):
        if each.__module__.startswith("core."):
            [definition] = ast.parse(textwrap.dedent(inspect.getsource(each))).body
            assert isinstance(definition, ast.ClassDef)
            docs |= dict(_documented(definition))
    return docs


def _documented(definition: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, doc in pairwise(definition.body):
        match field, doc:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, inspect.cleandoc(text)


def as_json_says(text: str) -> str:
    """A docstring in one line, with JSON's word for None."""
    return re.sub(r"\bNone\b", "null", re.sub(r"\s+", " ", text))
