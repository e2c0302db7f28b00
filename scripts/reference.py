"""Writes the parts of the documentation that follow from the code: flags, keys, options, metrics and records.

    python -m scripts.reference            writes them, and prints the files that it changed
    python -m scripts.reference --check    only prints the files that are stale; exits with 1 if there are any

A part of a page stands between `<!-- generated: NAME -->` and `<!-- end -->`. What it says of a field is the docstring
below the field, or the description of its type; what it says of a flag is the flag's help.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel, BeforeValidator, ByteSize
from pydantic.fields import FieldInfo

from core.bench.experiment import Experiment
from core.bench.requests import Chat, OneRequest
from core.bench.workload import Closed, Columns, Open, TraceChoice
from core.cli.commands import commands
from core.config.choices import Batching, BilledSize, Cost, StrategyChoice, parse_duration
from core.config.cluster import ClusterSettings
from core.config.engines import EngineChoice
from core.config.options import describe_options
from core.config.quantities import duration, parse_seconds
from core.config.settings import ELSEWHERE, Settings
from core.config.variables import PREFIX
from core.planning.nodes import PlanNodes
from core.planning.plan_file import PlanFile
from core.plugins import Registered, load_plugins
from core.results import card, comparisons, economics, summary
from core.results import figures as figures_of_trials
from core.serving.metrics import Metrics
from scripts.schemas import as_json_says, field_docs, plan_schema, record_schema, summary_schema

DOCS = Path(__file__).resolve().parents[1] / "docs"
BUILT_IN = "built in"  # the source of the plugins that ship; others may be installed
LONG = 80  # characters of a mapping that is no longer shown
SCHEMAS = Path("schema")
MARKED = re.compile(r"(<!-- generated: (\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
MORE = {  # where a page says more, by the part and the key
    ("commands", "run"): "[Experiments](experiments.md)",
    ("commands", "resume"): "[Experiments](experiments.md#interrupt-and-resume)",
    ("commands", "report"): "[Results](results.md)",
    ("commands", "compare"): "[Measuring](measuring.md#compare-with-an-older-run)",
    ("commands", "export"): "[Results](results.md#other-tools)",
    ("commands", "plan"): "[Planning](planning.md)",
    ("commands", "plugins"): "[Plugins](plugins.md)",
    ("commands", "check"): "[Plugins](plugins.md#check-a-plugin)",
    ("commands", "convert"): "[Loaders](loaders.md#conversion)",
    ("commands", "import"): "[Engines](engines.md#coming-from-llama-swap)",
    ("commands", "serve"): "[Serving](serving.md)",
    ("settings", "models"): "[Loaders](loaders.md#model-references) and [Engines](engines.md)",
    ("settings", "strategies"): "[Strategies](#strategies)",
    ("settings", "plugins"): "[Plugins](plugins.md)",
    ("settings", "batching"): "[Production](production.md#batches)",
    ("settings", "cost"): "[Economics](economics.md#prices)",
    ("settings", "capture"): "[Traffic](traffic.md#record-and-replay-your-own-traffic)",
    ("experiment", "models"): "[Loaders](loaders.md#model-references) and [Engines](engines.md)",
    ("experiment", "strategies"): "[Strategies and their loaders](#strategies-and-their-loaders)",
    ("experiment", "requests"): "[Engines and requests](#engines-and-requests)",
    ("experiment", "workload"): "[Traffic](traffic.md)",
    ("experiment", "slo"): "[Measuring](measuring.md#targets)",
    ("experiment", "precision"): "[Measuring](measuring.md#precision)",
    ("experiment", "cost"): "[Economics](economics.md#prices)",
    ("experiment", "limit"): "[Memory](memory.md#a-limit)",
    ("experiment", "plugins"): "[Plugins](plugins.md)",
    ("experiment", "batching"): "[Serving](serving.md#settings)",
    ("plan", "workload"): "[Traffic](traffic.md)",
    ("plan", "cost"): "[Economics](economics.md#prices)",
    ("plan", "plugins"): "[Plugins](plugins.md)",
    ("prices", "charge"): "[Memory](memory.md)",
    ("prices", "billing"): "[Billing](#billing)",
    ("prices", "sizes"): "[Memory](memory.md#sizes)",
    ("workload", "columns"): "[Traces](#traces)",
    ("workload", "arrivals"): "[Arrivals](#arrivals)",
    ("workload", "popularity"): "[Popularity](#popularity)",
}


def table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Of Markdown."""
    cells = [[re.sub(r"\s+", " ", cell).replace("|", "\\|") for cell in row] for row in rows]
    lines = [header, ("---",) * len(header), *cells]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def is_duration(field: FieldInfo) -> bool:
    return any(
        isinstance(rule, BeforeValidator) and rule.func in (parse_duration, parse_seconds) for rule in field.metadata
    )


def default_of(field: FieldInfo) -> str:
    """As a person would write it."""
    default = field.default_factory() if field.default_factory else field.default  # type: ignore[call-arg]
    if field.is_required():
        return "required"
    if isinstance(default, ByteSize):
        return f"`{default.human_readable(separator='').replace('.0', '')}`"
    if is_duration(field):
        return f"`{duration(default).replace(' ', '')}`" if isinstance(default, float) else f"`{default}`"
    if default is None or (isinstance(default, list | tuple | dict) and not default):
        return "none"
    if isinstance(default, BaseModel):
        parts = {name: default_of(field).strip("`") for name, field in type(default).model_fields.items()}
        return _mapping({name: part for name, part in parts.items() if part != "none"})
    if isinstance(default, dict):
        return _mapping(default)
    if isinstance(default, bool | float):
        return f"`{json.dumps(default)}`".replace(".0`", "`")
    return f"`{default}`"


def _mapping(parts: Mapping[str, object]) -> str:
    shown = ", ".join(f"{key}: {value}" for key, value in parts.items())
    return f"`{{{shown}}}`" if len(shown) < LONG else "each key's own"


def meaning_of(part: str, key: str, text: str) -> str:
    """A sentence or more, with where to read on."""
    more = MORE.get((part, key))
    sentence = f"{text.strip().removesuffix('.')}."
    return f"{sentence} See {more}." if more else sentence


def keys(part: str, cls: type[BaseModel]) -> list[tuple[str, str, str]]:
    """(key, default, meaning) of each field."""
    docs = field_docs(cls)
    return [
        (f"`{name}`", default_of(field), meaning_of(part, name, docs[name])) for name, field in cls.model_fields.items()
    ]


def key_table(part: str, cls: type[BaseModel]) -> str:
    return table(("key", "default", "meaning"), keys(part, cls))


def settings() -> str:
    rows = [(f"`{PREFIX}{name}`", default, meaning) for name, (default, meaning) in ELSEWHERE.items()]
    named = ((key.strip("`").upper(), default, meaning) for key, default, meaning in keys("settings", Settings))
    return table(("variable", "default", "meaning"), [*rows, *((f"`{PREFIX}{n}`", d, m) for n, d, m in named)])


def workload() -> str:
    kinds: tuple[tuple[str, type[BaseModel]], ...] = (("closed", Closed), ("open", Open), ("trace", TraceChoice))
    rows = [(f"`{kind}`", *row) for kind, cls in kinds for row in keys("workload", cls)]
    return table(("kind", "key", "default", "meaning"), rows)


def options(kind: str, known: Mapping[str, Registered]) -> str:
    """Of all strategies, or of all loaders."""
    rows = [
        (f"`{owner}`", f"`{name}`", values_of(shown, field), default_of(field), field.description or "")
        for owner, entry in known.items()
        if entry.source == BUILT_IN
        for name, shown, _ in describe_options(entry.options)
        for field in [entry.options.model_fields[name]]
    ]
    return table((kind, "option", "values", "default", "meaning"), rows)


def values_of(kind: str, field: FieldInfo) -> str:
    """What an option may be, as a person who writes YAML reads it; `kind` is its type in Python."""
    if is_duration(field):
        return "duration"
    words = {
        "bool": "`true`, `false`", "float": "number", "int": "whole number", "ByteSize": "size",
        "Sequence[str]": "list of model ids", "None": "`null`",
    }  # fmt: skip
    if " | dict" in kind:  # by model id
        one = values_of(kind.partition(" | dict")[0], field).replace("number", "duration")
        return f"{one}, or a mapping of these"
    return ", ".join(words.get(each, f"`{each}`") for each in kind.split(" | ") if each != "None")


def command_table() -> str:
    rows = [
        (f"`{_usage(name, command)}`", meaning_of("commands", name, command.help or ""))
        for name, command in commands.commands.items()
    ]
    return table(("command", "purpose"), rows)


def _usage(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=name)
    arguments = [each.make_metavar(context) for each in command.params if isinstance(each, click.Argument)]
    return " ".join((name, *arguments))


def flags() -> str:
    """A section for each command that has any."""
    sections = []
    for name, command in commands.commands.items():
        context = click.Context(command, info_name=name)
        found = [each for each in command.params if isinstance(each, click.Option)]
        rows = [(_flag(each, context), _effect(each)) for each in found]
        if rows:
            sections.append(f"### {name}\n\n{table(('flag', 'effect'), rows)}")
    return "\n".join(sections)


def _flag(option: click.Option, context: click.Context) -> str:
    value = "" if option.is_flag else f" {option.make_metavar(context)}"
    return f"`{', '.join(option.opts)}{value}`"


def _effect(option: click.Option) -> str:
    """Its help, with its default."""
    text, _, default = (option.help or "").partition("  [default: ")
    if option.show_default:
        default = f"`{option.default}`"
    return f"{text} By default {default.removesuffix(']')}." if default else text


def metrics() -> str:
    rows = [
        (f"`{each.name}`", each.kind, ", ".join(f"`{label}`" for label in each.labels), f"{each.text}.")
        for each in Metrics().definitions
    ]
    return table(("metric", "type", "labels", "meaning"), rows)


def plan_fields() -> str:
    """A row for each field of `plan.json`."""
    schema = plan_schema()
    rows = [(f"`{name}`", str(node["description"])) for name, node in schema["properties"].items()]
    return table(("key", "meaning"), rows)


def figures(cls: type[BaseModel]) -> str:
    """A row for each field of a part of `summary.json`."""
    docs = {name: as_json_says(text) for name, text in field_docs(cls).items()}
    fields = {name: field.alias or name for name, field in cls.model_fields.items() if name != "kind"}
    return table(("key", "meaning"), [(f"`{key}`", docs[name]) for name, key in fields.items()])


def record_fields() -> str:
    """A section for each kind of record, with a row for each field and for each part of one."""
    schema = record_schema()
    sections = []
    for definition in (_resolved(schema, each) for each in schema["oneOf"]):
        kind = definition["properties"]["kind"]["const"]
        rows = list(_fields(schema, definition, ""))
        text = definition["description"]
        sections.append(f"### {kind}\n\n{text}\n\n{table(('field', 'type', 'meaning'), rows)}")
    return "\n".join(sections)


def _resolved(schema: Mapping[str, Any], node: Mapping[str, Any]) -> Mapping[str, Any]:
    name = str(node.get("$ref", "")).removeprefix("#/$defs/")
    return schema["$defs"][name] if name else node


def _fields(schema: Mapping[str, Any], definition: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str, str]]:
    """(path, type, meaning) of each field, and of the fields of those that are objects."""
    for name, node in definition["properties"].items():
        if name == "kind":
            continue
        path = f"{prefix}{name}"
        is_optional = name not in definition.get("required", ())
        yield f"`{path}`", _type(schema, node) + (", optional" if is_optional else ""), node["description"]
        for each in node.get("anyOf", [node]):
            inner, end = each, "."
            if each.get("type") == "array":
                inner, end = each.get("items", {}), "[]."
            elif each.get("additionalProperties"):
                inner, end = each["additionalProperties"], ".*."
            if inner is not True and "properties" in (found := _resolved(schema, inner)):
                yield from _fields(schema, found, f"{path}{end}")


def _type(schema: Mapping[str, Any], node: Mapping[str, Any]) -> str:
    """The JSON type, in words."""
    if "anyOf" in node:
        return " or ".join(dict.fromkeys(_type(schema, each) for each in node["anyOf"]))
    if "enum" in node:
        return " or ".join(f"`{value}`" for value in node["enum"])
    if "const" in node:
        return f"`{node['const']}`"
    if node.get("type") == "array" and "items" in node:
        return f"array of {_type(schema, node['items'])}s"
    return str(_resolved(schema, node).get("type", "any value"))


def parts() -> dict[str, Callable[[], str]]:
    """What makes each part, by its name."""
    plugins = load_plugins()
    return {
        "commands": command_table,
        "flags": flags,
        "settings": settings,
        "experiment": lambda: key_table("experiment", Experiment),
        "chat": lambda: key_table("chat", Chat),
        "request": lambda: key_table("request", OneRequest),
        "strategy": lambda: key_table("strategy", StrategyChoice),
        "engines": lambda: key_table("engines", EngineChoice),
        "cluster": lambda: key_table("cluster", ClusterSettings),
        "batching": lambda: key_table("batching", Batching),
        "workload": workload,
        "columns": lambda: key_table("columns", Columns),
        "plan": lambda: key_table("plan", PlanFile),
        "plan-nodes": lambda: key_table("plan-nodes", PlanNodes),
        "prices": lambda: key_table("prices", Cost),
        "size": lambda: key_table("size", BilledSize),
        "strategy-options": lambda: options("strategy", plugins.strategies),
        "loader-options": lambda: options("loader", plugins.loaders),
        "metrics": metrics,
        "records": record_fields,
        "plan-figures": plan_fields,
        "summary": lambda: figures(summary.Summary),
        "trials": lambda: figures(figures_of_trials.TrialFigures),
        "comparisons": lambda: figures(comparisons.Comparison),
        "statistics": lambda: figures(comparisons.Statistic),
        "economics": lambda: figures(economics.Economics),
        "trial-costs": lambda: figures(economics.TrialCosts),
        "break-even": lambda: figures(economics.BreakEven),
        "card": lambda: figures(card.Card),
        "card-settings": lambda: figures(card.Settings),
        "bursts": lambda: figures(card.Bursts),
    }


def pages(folder: Path) -> dict[Path, str]:
    """Every generated file of the folder, as it should be. Raises ValueError for a part that has no page, or two."""
    made = {name: f"\n{make()}\n" for name, make in parts().items()}
    schemas = {"records.json": record_schema(), "summary.json": summary_schema(), "plan.json": plan_schema()}
    written = {
        folder / SCHEMAS / name: json.dumps(each, indent=2, ensure_ascii=False) + "\n" for name, each in schemas.items()
    }
    found: list[str] = []
    for path in sorted(folder.rglob("*.md")):
        text = path.read_text()
        found += [match[2] for match in MARKED.finditer(text)]
        if set(found) <= made.keys():
            written[path] = MARKED.sub(lambda match: f"{match[1]}{made[match[2]]}{match[4]}", text)
    if sorted(found) != sorted(made):
        raise ValueError(f"each part must stand in one page: {', '.join(sorted(set(made) ^ set(found)) or found)}")
    return written


def stale(folder: Path) -> dict[Path, str]:
    """The files that are not as they should be, with what they should be."""
    return {path: text for path, text in pages(folder).items() if not path.exists() or path.read_text() != text}


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="Write nothing; exit with 1 if a file is stale.")
    parser.add_argument("--folder", type=Path, default=DOCS, help="The folder of the pages.")
    given = parser.parse_args(arguments)
    found = stale(given.folder)
    for path, text in found.items():
        print(f"{path}: {'stale; run python -m scripts.reference' if given.check else 'written'}")
        if not given.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return 1 if found and given.check else 0


if __name__ == "__main__":
    raise SystemExit(main())
