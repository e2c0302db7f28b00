"""Files of texts: what a line is, what their limits are, and that a run reads again whatever it wrote."""

from __future__ import annotations

import codecs
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as some

from core.bench import texts
from core.bench.experiment import Overrides, ResolvedExperiment, load_experiment
from core.bench.resume import read_experiment, write_experiment
from core.bench.run import prepare, write_header
from core.bench.texts import json_lines, read_texts
from core.config.settings import settings_from_environment
from core.errors import ResidencyError
from core.results.folder import read_records
from tests.helpers.support import FAKES, checkpoint_in

# What `str.splitlines` would split at, and a text file does not.
NO_LINE_ENDS = "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\r"
ODD = ["two\nlines", "", " ", "a\r\nb", "# no comment", f"all {NO_LINE_ENDS} in one", "\x00", "速い 🚀", '"']
LONG = "x" * 1_000_000


def lines(folder: Path, content: bytes, name: str = "texts.txt") -> tuple[str, ...]:
    (folder / name).write_bytes(content)
    return read_texts(folder / name)


def experiment(folder: Path, **changes: Any) -> Path:
    values = {"name": "odd", "strategies": ["persistent"], "texts": ["one"]} | changes
    (folder / "odd.yaml").write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    return folder / "odd.yaml"


def test_a_line_ends_at_a_line_feed_only(tmp_path: Path) -> None:
    one = f"a{NO_LINE_ENDS}b"
    assert lines(tmp_path, f"{one}\nsecond\r\n\n  \nthird".encode()) == (one, "second", "third")


@pytest.mark.parametrize("name", ["texts.txt", "texts.jsonl"])
def test_a_byte_order_mark_is_no_text(tmp_path: Path, name: str) -> None:
    content = b'"one"\n"two"\n' if name.endswith("jsonl") else b"one\ntwo\n"
    assert lines(tmp_path, codecs.BOM_UTF8 + content, name) == ("one", "two")


def test_neither_is_it_in_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = {"trace": {"file": "trace.csv"}}
    (tmp_path / "trace.csv").write_bytes(codecs.BOM_UTF8 + b"time\n1\n2\n")
    path = experiment(tmp_path, workload=trace)
    path.write_bytes(codecs.BOM_UTF8 + b"# Is it?\n" + path.read_bytes())
    plan = load_experiment(path)
    assert (plan.question, plan.requests) == ("Is it?", 2)
    (tmp_path / "app.yaml").write_bytes(codecs.BOM_UTF8 + b"max_texts: 7\n")
    monkeypatch.setenv("RESIDENCY_CONFIG", str(tmp_path / "app.yaml"))
    assert settings_from_environment().max_texts == 7


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("t.txt", "x" * 1_000_001, "t.txt:1: is a text of 1000001 characters; 1000000 are allowed."),
        ("t.jsonl", json.dumps("x" * 1_000_001), "t.jsonl:1: is a text of 1000001 characters"),
        ("t.txt", "x\n" * 10_001, "must contain 1 to 10000 lines with text, but contains 10001."),
        ("t.jsonl", '"x"\n' * 10_001, "must contain 1 to 10000 lines with text, but contains 10001."),
        ("t.txt", "\n \n", "must contain 1 to 10000 lines with text, but contains 0."),
        ("t.jsonl", '"a"\n{"text": "b"}\n', "t.jsonl:2: must be a JSON string, such as"),
        ("t.jsonl", '"a"\nb\n', "t.jsonl:2: must be a JSON string, such as"),
        ("t.jsonl", '"\\ud800"\n', "t.jsonl:1: must be a JSON string, such as"),
    ],
)
def test_limits_hold_for_files_too(tmp_path: Path, name: str, content: str, sentence: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ResidencyError) as failure:
        load_experiment(experiment(tmp_path, texts={"file": name}))
    assert str(failure.value).startswith(f"{tmp_path / 'odd.yaml'}:")
    assert sentence in str(failure.value)


def test_all_texts_together_have_a_limit_in_either_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "MAX_BYTES", 10)
    for name, content in (("t.txt", b"123456\n123456\n"), ("t.jsonl", b'"123456"\n"123456"\n')):
        with pytest.raises(ResidencyError, match=r"t\.(txt: is larger than|jsonl contains more than)"):
            lines(tmp_path, content, name)


@pytest.mark.process
@given(some.lists(some.text(alphabet=some.characters(exclude_categories=["Cs"])), min_size=1))
@settings(deadline=None)
def test_any_text_is_read_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, given: list[str]) -> None:
    path = tmp_path_factory.mktemp("texts") / "t.jsonl"
    path.write_text("".join(json_lines(given)), encoding="utf-8", newline="")
    assert read_texts(path) == tuple(given)


def again(plan: ResolvedExperiment, folder: Path) -> ResolvedExperiment:
    """The experiment as a run keeps it, from a folder that was moved meanwhile."""
    (folder / "before").mkdir()
    write_experiment(folder / "before", plan)
    shutil.move(folder / "before", folder / "after")
    return load_experiment(folder / "after" / "experiment.yaml")


def same(plan: ResolvedExperiment, other: ResolvedExperiment) -> bool:
    left, right = (each.experiment.model_dump(exclude={"texts"}) for each in (plan, other))
    return (left, plan.question, plan.texts, plan.trials) == (right, other.question, other.texts, other.trials)


@pytest.mark.process
def test_a_run_reads_again_what_it_wrote(tmp_path: Path) -> None:
    """More than a YAML file may hold: 1 MiB, or 20 000 values."""
    for name, content in (("odd", [*ODD, LONG]), ("long", ["long " * 400] * 2500), ("many", ["many"] * 10_000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "t.jsonl").write_text("".join(json_lines(content)), encoding="utf-8", newline="")
        plan = load_experiment(experiment(tmp_path / name, texts={"file": "t.jsonl"}))
        assert plan.texts == tuple(content)
        assert same(plan, again(plan, tmp_path / name))


def test_inline_texts_of_several_lines_stay_one(tmp_path: Path) -> None:
    plan = load_experiment(experiment(tmp_path, texts=["two\nlines\n", " blank before", ""]))
    assert again(plan, tmp_path).texts == ("two\nlines\n", " blank before", "")


@pytest.mark.slow
@pytest.mark.process
def test_so_it_does_with_other_lists(tmp_path: Path) -> None:
    """As many strategies, models and plugins as an experiment may name, and labels that look like something else."""
    labels = ["012", "yes", "null", "1e3", "- a", "速い 🚀", "a: b", "'", "#"]
    strategies: list[Any] = [{"strategy": "on-demand", "label": label} for label in labels]
    strategies += [{"strategy": "on-demand", "label": f"n{n}", "loader": "fake"} for n in range(4000)]
    strategies += ["persistent", {"strategy": "lru-cached", "options": {"memory_budget": "1GiB"}}]
    strategies += [{"strategy": "persistent", "loader": {"name": "transformers", "dtype": "bfloat16"}}]
    models = {f"m{n}": "embedded" for n in range(3000)}
    path = experiment(tmp_path, strategies=strategies, models=models, plugins=[FAKES], repetitions=1)
    plan = load_experiment(path)
    assert len(plan.trials) == len(strategies)
    assert same(plan, again(plan, tmp_path))


@pytest.mark.process
def test_a_question_ends_where_yaml_ends_its_line(tmp_path: Path) -> None:
    for number, end in enumerate(("\u2028", "\x85", "\r", "\r\n", "\n")):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = experiment(folder)
        path.write_bytes(f"# Is it?{end}".encode() + path.read_bytes())
        plan = load_experiment(path)
        assert plan.question == "Is it?"
        assert same(plan, again(plan, folder))


@pytest.mark.process
def test_what_was_kept_is_what_is_gone_on_with(tmp_path: Path) -> None:
    checkpoint_in(tmp_path / "a")
    plan = load_experiment(experiment(tmp_path, texts=["a\nb", "c"], models={"a": str(tmp_path / "a")}), Overrides())
    write_header(plan, *prepare(plan), tmp_path)
    header = read_records(tmp_path).header
    assert read_experiment(tmp_path, header).texts == ("a\nb", "c")
    kept = (tmp_path / "texts.jsonl").read_text()
    (tmp_path / "texts.jsonl").write_text(kept.replace('"c"', '"d"'))
    with pytest.raises(ResidencyError, match=r"its experiment.yaml or texts.jsonl was changed"):
        read_experiment(tmp_path, header)
