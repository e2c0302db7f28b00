"""Whatever is wrong in a file, a variable, an option or a flag is told in our words, never in a library's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as some
from pydantic import BaseModel, ByteSize, Field

from core.bench.experiment import Experiment, load_experiment
from core.cli import main
from core.config.options import in_seconds, options_model, validate_options
from core.config.quantities import duration, parse_seconds, parse_size
from core.config.settings import Settings, settings_from_environment
from core.config.strict_yaml import parse as parse_yaml
from core.errors import OptionError, ResidencyError
from core.planning.plan_file import PlanFile, load_plan
from core.plugins import Registered, load_plugins

PHRASES = re.compile(
    "input should|should (be|have|match)|extra inputs|validation|could not parse|value error|unable to|pydantic|"
    "field required|not permitted|a valid |did not find|expected |while (parsing|scanning)|"
    r"any token|not allowed in this context|(keyword|positional) argument|arguments are|invalid|unrecognized|function-|"
    r"literal\[|\bstr\b|\bdict\b",
    re.IGNORECASE,
)
EXPERIMENT = {"name": "x", "strategies": ["persistent"], "texts": ["a"]}
PLAN = {"name": "x", "profile": "nowhere", "workload": {"open": {"rate": 1, "requests": 5}}}
WRONG: list[Any] = [
    *("", "x", "\x07", "5 parsecs", "1,5MiB", "10,000,000", "50%", "1MiB x", "x" * 2000),
    *(-1, 0, 1.5, -0.5, 10**30, True, False, None, [], {}, ["x"], [[]], [1], [None], {"x": 1}, {"x": {"y": []}}),
    *({"": ""}, ["x"] * 20, {f"k{n}": n for n in range(20)}, "2026-01-31", "~", "!x", "[", "nan"),
]


def paths(model: type[BaseModel], *above: str) -> Iterator[tuple[str, ...]]:
    """Every key that a file may have, and those of the mappings in it."""
    for name, field in model.model_fields.items():
        here = (*above, field.alias or name)
        yield here
        for inner in models_in(field.annotation):
            yield from paths(inner, *here)


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from models_in(argument)


def with_value(base: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    first, *rest = path
    below = base.get(first)
    inner = below if isinstance(below, dict) and first != "workload" else {}
    return base | {first: with_value(inner, tuple(rest), value) if rest else value}


def told(folder: Path, kind: str, document: Any) -> str:
    """What is said of the document; nothing where it is right."""
    path = folder / f"{kind}.yaml"
    path.write_text(yaml.dump(document, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True), encoding="utf-8")
    try:
        if kind == "experiment":
            load_experiment(path)
        elif kind == "plan":
            load_plan(path)
        else:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("RESIDENCY_CONFIG", str(path))
                settings_from_environment()
    except ResidencyError as error:
        return str(error)
    return ""


def ours(sentence: str) -> bool:
    """Without what was given, and the file's own name."""
    plain = re.sub(r"\(got .*\)|not '.*'|^\S*?:\d+:\d+: \S+: ", "", sentence)
    return PHRASES.search(plain) is None


KINDS: dict[str, tuple[type[BaseModel], dict[str, Any]]] = {
    "experiment": (Experiment, EXPERIMENT),
    "plan": (PlanFile, PLAN),
    "settings": (Settings, {"models": {"a": "embedded"}}),
}
KEYS = [(kind, path) for kind, (model, _) in KINDS.items() for path in paths(model)]


NAMES = [f"{kind}: {'.'.join(path)}" for kind, path in KEYS]


def refuse(folder: Path, kind: str, path: tuple[str, ...], values: list[Any]) -> None:
    """Give the key each of the values; most are refused, in our words."""
    refused = 0
    for value in values:
        sentence = told(folder, kind, with_value(KINDS[kind][1], path, value))
        refused += bool(sentence)
        assert ours(sentence), sentence
        assert sentence.isprintable(), repr(sentence)
        assert len(sentence) < 900
    assert refused > len(values) // 4


@pytest.mark.process
@pytest.mark.parametrize("number", range(len(KEYS)), ids=NAMES)
def test_no_wrong_value_is_told_in_a_librarys_words(tmp_path: Path, number: int) -> None:
    """Each key meets a quarter of the values, and each value a quarter of the keys."""
    refuse(tmp_path, *KEYS[number], WRONG[number % 4 :: 4])


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "path"), KEYS, ids=NAMES)
def test_nor_is_any_of_them_for_any_key(tmp_path: Path, kind: str, path: tuple[str, ...]) -> None:
    refuse(tmp_path, kind, path, WRONG)


@pytest.mark.process
@given(some.recursive(some.none() | some.booleans() | some.integers() | some.floats() | some.text(), some.lists))
@settings(deadline=None, max_examples=20)
def test_neither_is_any_other(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    folder = tmp_path_factory.mktemp("any")
    for key in ("repeats", "slo", "models", "strategies", "workload", "timeout"):
        try:
            sentence = told(folder, "experiment", EXPERIMENT | {key: value})
        except yaml.YAMLError:  # what cannot be written
            return
        assert ours(sentence), sentence


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("max_body", "10,000,000", "must be a size, such as 512MiB (got '10,000,000')"),
        ("max_queue_bytes", "1,5MiB", "must be a size, such as 512MiB (got '1,5MiB')"),
        ("max_header", "50%", "must be a size, such as 512MiB (got '50%')"),
        ("max_texts", 0, "must be at least 1, such as 256 (got 0)"),
        ("request_timeout", "soon", "must be a duration such as 200ms, 30s, 10min or 2h, not 'soon'"),
        ("log", "xml", "must be one of text, json (got 'xml')"),
        ("models", {}, "must be a list or a mapping with at least 1 value (got {})"),
        ("token", "short", "must be a text of at least 16 characters"),
    ],
)
def test_settings_say_what_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: Any, sentence: str
) -> None:
    assert f"{key}: {sentence}." in told(tmp_path, "settings", {key: value})
    if key != "models":
        monkeypatch.setenv(f"RESIDENCY_{key.upper()}", str(value))
        with pytest.raises(ResidencyError) as failure:
            settings_from_environment()
        assert str(failure.value).startswith(f"RESIDENCY_{key.upper()}: must be ")
        assert "short" not in str(failure.value)


def test_a_variable_that_is_no_yaml_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESIDENCY_MODELS", "{a: embedded")
    with pytest.raises(ResidencyError, match=r"RESIDENCY_MODELS:\d:\d: is not valid YAML: a bracket is not closed"):
        settings_from_environment()


def test_durations_and_sizes_in_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESIDENCY_REQUEST_TIMEOUT", "1min30s")
    monkeypatch.setenv("RESIDENCY_SHUTDOWN_TIMEOUT", "5")
    monkeypatch.setenv("RESIDENCY_MAX_BODY", "1.5MiB")
    found = settings_from_environment()
    assert (found.request_timeout, found.shutdown_timeout, found.max_body) == (90, 5, 3 << 19)


BROKEN = [
    *("a: b: c", "a: [1", "a: {b", "a: 'x", 'a: "\\z"', "a:\n\tb", "- a\nb: c", "a: %x", "a: @x", "a: !x y", "a\nb: c"),
    *(
        "? [a]\n: b",
        "a: b\n c: d",
        "}",
        "a: \x07",
        "%YAML 3.0\n---\na",
        "a: &x",
        "a: *x",
        "--- a\n--- b",
        "a: - b",
        "a: |x",
    ),
]


@pytest.mark.parametrize("text", BROKEN)
def test_neither_is_a_text_that_is_no_yaml(text: str) -> None:
    with pytest.raises(ResidencyError) as failure:
        parse_yaml(text, Path("x.yaml"))
    assert ours(str(failure.value)), failure.value
    assert str(failure.value).isprintable()


FLAGS = [
    *(
        "--bogus",
        "a b",
        "--repeats",
        "--repeats x",
        "--repeats=",
        "--repeats -1",
        "--dry-run=3",
        "--report a --resume b",
        "reprot results",
    ),
    *("--model a", "--model", "--tolerance 5", "--dry", "-x", "--plan", "--output", "a --exit-on-slo --plan b"),
    *("--wide=3", "--wide --plan b", "--wide --plugins", "plan", "resume", "compare a", "check", "convert --wide"),
]


@pytest.mark.parametrize("line", FLAGS)
def test_neither_is_a_wrong_flag(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    said = capsys.readouterr().err.removeprefix("error: ").partition("\n\n")[0]
    assert ours(said), said


class Patient:
    """As a third party writes it."""

    name = "patient"

    def __init__(
        self,
        *,
        rest: float = 5.0,
        rests: dict[str, float | Literal["forever"]] | None = None,
        steps: list[float] = [],  # noqa: B006
        budget: ByteSize | None = None,
        share: Annotated[float, Field(ge=0, le=1, strict=True)] = 0.5,
        count: int = 3,
    ) -> None: ...


def test_an_option_that_is_a_float_takes_a_duration() -> None:
    model = options_model(Patient)
    given = {
        "rest": "1min30s",
        "rests": {"a": "200ms", "b": 3, "c": "forever"},
        "steps": ["1s", 2],
        "budget": "1.5 MiB",
    }
    read = validate_options(model, given, "strategy 'patient'")
    assert read == {
        "rest": 90, "rests": {"a": 0.2, "b": 3, "c": "forever"}, "steps": [1, 2], "budget": 3 << 19
    }  # fmt: skip
    assert in_seconds(given, read) == read | {"budget": "1.5 MiB"}


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("rest", "soon", "must be a duration such as 200ms, 30s, 10min or 2h, not 'soon'"),
        ("rest", [1], "must be a number, such as 5 (got [1])"),
        ("rests", {"a": "soon"}, "must be a duration such as 200ms, 30s, 10min or 2h, or one of forever (got 'soon')"),
        ("budget", "10,000,000", "must be a size, such as 512MiB (got '10,000,000')"),
        ("budget", "1MiB x", "must be a size, such as 512MiB (got '1MiB x')"),
        ("budget", True, "must be a size, such as 512MiB (got True)"),
        ("share", "5min", "must be a number, such as 0.5 (got '5min')"),
        ("count", 1.5, "must be a whole number, such as 3 (got 1.5)"),
    ],
)
def test_an_options_wrong_value(option: str, value: Any, sentence: str) -> None:
    with pytest.raises(OptionError) as failure:
        validate_options(options_model(Patient), {option: value}, "strategy 'patient'")
    assert str(failure.value) == f"strategy 'patient': option '{option}': {sentence}."


@pytest.mark.parametrize(
    "option", [(each.kind, each.name, name) for p in [load_plugins()] for kind in (p.strategies, p.loaders)
               for each in kind.values() for name in each.options.model_fields]
)  # fmt: skip
def test_neither_is_a_built_in_option(option: tuple[str, str, str]) -> None:
    kind, name, key = option
    plugins = load_plugins()
    entry = plugins.strategy(name) if kind == "strategy" else plugins.loader(name)
    said = [sentence for value in WRONG if (sentence := refusal(entry, {key: value}))]
    assert said
    assert [sentence for sentence in said if not ours(sentence)] == []


def test_of_several_forms_each_is_named_once() -> None:
    keep_alive = load_plugins().strategy("keep-alive")
    forms = "must be a duration such as 200ms, 30s, 10min or 2h, or one of forever, auto, learned"
    assert refusal(keep_alive, {"ttl": "soon"}).endswith(f"{forms}, or a mapping, of keys to values (got 'soon').")
    assert refusal(keep_alive, {"ttl": {"a": "soon"}}).endswith(f"{forms} (got 'soon').")


def refusal(entry: Registered, options: dict[str, Any]) -> str:
    try:
        entry.validate(options)
    except OptionError as error:
        return str(error)
    return ""


def test_a_ttl_is_a_duration_for_the_server_and_for_the_costs(tmp_path: Path) -> None:
    options = {"ttl": {"a": "5min", "b": "forever"}, "memory_budget": "1GiB"}
    document = EXPERIMENT | {"models": {"a": "embedded", "b": "embedded"}} | {
        "strategies": [{"strategy": "keep-alive", "options": options}]
    }  # fmt: skip
    assert told(tmp_path, "experiment", document) == ""
    [trial] = load_experiment(tmp_path / "experiment.yaml").trials
    assert trial.choice.options == {"ttl": {"a": 300.0, "b": "forever"}, "memory_budget": "1GiB"}


@pytest.mark.parametrize(
    ("length", "said"),
    [
        (0, "0 s"), (0.0005, "0.5 ms"), (0.2, "0.2 s"), (1, "1 s"), (12.5, "12.5 s"), (59.99, "1 min"),
        (90, "1 min 30 s"), (3599.9, "1 h"), (5400, "1 h 30 min"), (72_000, "20 h"), (90_000, "1 d 1 h"),
        (30 * 86_400, "30 d"), (1e9, "11574 d 2 h"),
    ],
)  # fmt: skip
def test_a_duration_is_told_as_people_say_it(length: float, said: str) -> None:
    assert duration(length) == said
    assert parse_seconds(said) == pytest.approx(length, rel=0.02, abs=1e-9)


@given(some.floats(min_value=0, max_value=1e10, allow_nan=False))
def test_what_is_told_can_be_read(length: float) -> None:
    assert parse_seconds(duration(length)) == pytest.approx(length, rel=0.02, abs=1e-9)


@pytest.mark.parametrize(("text", "count"), [("512MiB", 512 << 20), ("1.5 GB", 1_500_000_000), ("2k", 2000), ("7", 7)])
def test_a_size(text: str, count: int) -> None:
    assert parse_size(text) == count


EXAMPLE_FILES = {
    "experiment": EXPERIMENT,
    "plan": PLAN,
    "settings": {"models": {"a": "embedded"}, "strategies": ["persistent"], "request_timeout": 5},
}


@pytest.mark.parametrize("given", EXAMPLE_FILES)
@pytest.mark.parametrize("wanted", EXAMPLE_FILES)
def test_a_file_of_another_kind_is_told_what_it_is_for(tmp_path: Path, given: str, wanted: str) -> None:
    sentence = told(tmp_path, wanted, EXAMPLE_FILES[given])
    remedy = {"experiment": "run it with: ", "plan": "simulate it with: ", "settings": "serve it with: "}[given]
    assert (remedy in sentence) == (given != wanted), sentence
