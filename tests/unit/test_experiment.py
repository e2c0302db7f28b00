from __future__ import annotations

import os
import time
import tracemalloc
from pathlib import Path

import pytest

from core.bench.experiment import Overrides, ResolvedExperiment, batching_setting, load_experiment
from core.bench.resume import write_experiment
from core.errors import ResidencyError
from tests.helpers.support import ROOT

GOOD = """# What is it?
name: good
models: {one: embedded}
strategies:
  - persistent
  - {strategy: lru-cached, options: {capacity: 2}, label: two}
texts:
  - A good day.
  - No
repetitions: 3
"""


def load(folder: Path, text: str, overrides: Overrides | None = None) -> ResolvedExperiment:
    path = folder / "bad.yaml"
    path.write_text(text)
    return load_experiment(path, overrides)


def test_a_good_one(tmp_path: Path) -> None:
    plan = load(tmp_path, GOOD)
    assert plan.question == "What is it?"
    assert plan.texts == ("A good day.", "No")  # text stays text, also where YAML 1.1 sees a boolean
    assert [trial.label for trial in plan.trials] == ["persistent", "two"]
    assert (plan.requests, plan.experiment.repeats) == (6, 5)
    assert batching_setting(plan) == {"max_batch_size": 32, "max_batch_tokens": 2048, "max_wait_ms": 0}
    assert batching_setting(load(tmp_path, GOOD + "batching: off\n")) == "off"
    assert batching_setting(load(tmp_path, GOOD + "batching: {max_batch_size: 4}\n")) == {
        "max_batch_size": 4,
        "max_batch_tokens": 2048,
        "max_wait_ms": 0,
    }


def test_targets_and_a_precision(tmp_path: Path) -> None:
    plan = load(tmp_path, GOOD + "slo: {p99: 200ms, p99.9: 1}\nprecision: 5%\n")
    assert plan.experiment.slo == {"p99": 0.2, "p99.9": 1}
    assert plan.experiment.precision == 0.05
    assert load(tmp_path, GOOD + "precision: 0.05\nrepeats: 5\n").experiment.precision == 0.05
    with pytest.raises(ResidencyError, match="11:1: precision: needs at least 5 rounds; set 'repeats' to the most"):
        load(tmp_path, GOOD + "precision: 5%\n", Overrides(repeats=4))


BAD = {
    "a target of no percentile": (("repetitions: 3", "slo: {p200: 1s}"), "10:7: slo.p200: "),
    "a target of no time": (("repetitions: 3", "slo: {p99: fast}"), "slo.p99: must be a duration such as 200ms"),
    "a target of nothing": (("repetitions: 3", "slo: {}"), "10:1: slo: "),
    "a precision that is none": (("repetitions: 3", "precision: much"), "precision: must be a percentage such as 5%"),
    "a precision of nothing": (
        ("repetitions: 3", "precision: 0%"),
        "precision: must be more than 0% and less than 100%, such as 5% (got 0).",
    ),
    "a precision with too few rounds": (("repetitions: 3", "precision: 5%\nrepeats: 4"), "needs at least 5 rounds"),
    "a price below nothing": (
        ("repetitions: 3", "cost: {cpu_hour: -1}"),
        "10:8: cost.cpu_hour: must be at least 0, such as 0.04048 (got -1).",
    ),
    "a price that is a word": (
        ("repetitions: 3", "cost: {memory_gib_hour: cheap}"),
        "cost.memory_gib_hour: must be a number, such as 0.004445 (got 'cheap').",
    ),
    "a memory that is not paid for": (
        ("repetitions: 3", "cost: {charge: rss}"),
        "cost.charge: must be one of pss, private (got 'rss').",
    ),
    "a billing of no kind": (
        ("repetitions: 3", "cost: {billing: monthly}"),
        "cost.billing: must be one of average, peak, size (got 'monthly').",
    ),
    "a size without sizes": (
        ("repetitions: 3", "cost: {billing: size}"),
        "10:1: cost: 'billing: size' needs 'sizes', such as [{memory: 512MiB, cpu: 0.25, hour: 0.0123}].",
    ),
    "sizes that nobody bills": (
        ("repetitions: 3", "cost: {sizes: [{memory: 512MiB, cpu: 0.25, hour: 0.01}]}"),
        "10:1: cost: 'sizes' needs 'billing: size', not 'billing: average'.",
    ),
    "sizes in disorder": (
        (
            "repetitions: 3",
            "cost: {billing: size, sizes: [{memory: 1GiB, cpu: 1, hour: 0.02}, {memory: 512MiB, cpu: 1, hour: 0.01}]}",
        ),
        "10:1: cost: 'sizes' must be in order of 'memory', the smallest first, and a larger one must not cost less.",
    ),
    "a size of nothing": (
        ("repetitions: 3", "cost: {billing: size, sizes: [{memory: 0, cpu: 1, hour: 0.02}]}"),
        "cost.sizes[0].memory: must be more than 0",
    ),
    "a price besides a size's": (
        (
            "repetitions: 3",
            "cost: {billing: size, cpu_hour: 0.04, sizes: [{memory: 1GiB, cpu: 1, hour: 0.02}]}",
        ),
        "10:1: cost: 'cpu_hour' is included in the price of a size; with 'billing: size' leave it out.",
    ),
    "a price of something else": (
        ("repetitions: 3", "cost: {gpu_hour: 1}"),
        "cost.gpu_hour: is not a known key; allowed: memory_",
    ),
    "a limit of nothing": (("repetitions: 3", "limit: {memory: 0}"), "10:9: limit.memory: must be more than 0"),
    "a limit of something else": (
        ("repetitions: 3", "limit: {pss: 1GiB}"),
        "limit.pss: is not a known key; allowed: memory",
    ),
    "a batch of none": (
        ("repetitions: 3", "batching: {max_batch_size: 0}"),
        "batching.max_batch_size: must be at least 1, such as 32 (got 0).",
    ),
    "a misspelt key": (
        ("repetitions:", "repetition:"),
        "bad.yaml:10:1: repetition: is not a known key; allowed: name, ",
    ),
    "a misspelt option": (("capacity", "capacitty"), "6:38: strategies[1].options.capacitty: strategy 'lru-cached'"),
    "a wrong type": (
        ("repetitions: 3", "repetitions: three"),
        "10:1: repetitions: must be a whole number, such as 10 (got 'three').",
    ),
    "a number that is text": (("repetitions: 3", 'repetitions: "3"'), "10:1: repetitions: "),
    "a fraction": (("repetitions: 3", "repetitions: 1.5"), "10:1: repetitions: "),
    "nothing to repeat": (("repetitions: 3", "repetitions: 0"), "must be at least 1, such as 10 (got 0)."),
    "a trillion repetitions": (
        ("repetitions: 3", "repetitions: 1000000000000"),
        "must be at most 1000000, such as 10 (got 1000000000000).",
    ),
    "too many requests": (("repetitions: 3", "repetitions: 900000"), "over the limit of 1000000 requests"),
    "an unknown strategy": (
        ("- persistent", "- persistant"),
        "5:5: strategies[0].strategy: There is no strategy 'persi",
    ),
    "an unknown loader": (
        ("- persistent", "- {strategy: persistent, loader: x}"),
        "strategies[0].loader: There is no lo",
    ),
    "a loader's option": (
        ("- persistent", "- {strategy: persistent, loader: {name: transformers, dtype: int3}}"),
        "option 'dtype': must be one of float32, bfloat16 (got 'int3')",
    ),
    "a label twice": (("label: two", "label: persistent"), "'persistent' is used by an earlier trial"),
    "no name": (("name: good\n", ""), "bad.yaml:2:1: name: is required."),
    "a name that leads out": (("name: good", "name: ../../etc"), "2:1: name: "),
    "a model id that leads out": (("{one:", "{../one:"), "models"),
    "no texts": (
        ("texts:\n  - A good day.\n  - No", "texts: []"),
        "must be a list or a mapping with at least 1 value (got []).",
    ),
    "a text that is a number": (("- No", "- 12"), "9:5: texts[1]: must be text, such as '12', in quotes (got 12)."),
    "texts of a shape of their own": (
        ("texts:\n  - A good day.\n  - No", "texts: {files: x}"),
        "must be a list of texts",
    ),
    "a file of texts that is not there": (
        ("texts:\n  - A good day.\n  - No", "texts: {file: none.txt}"),
        "cannot be read",
    ),
    "a key twice": (
        ("repetitions: 3", "repetitions: 3\nname: again"),
        "11:1: the key 'name' was already used in line 2",
    ),
    "an anchor": (("{one: embedded}", "&a {one: embedded}"), "3:9: anchors and aliases are not supported"),
    "a tag": (("name: good", "name: !!python/object/apply:os.system [id]"), "tag"),
    "a list for a mapping": ((GOOD, "- a\n- b\n"), "must be a mapping with the keys name, models"),
    "nothing": ((GOOD, ""), "1:1: name: is required."),
    "two documents": (("repetitions: 3", "---\nname: other"), "more than one document"),
    "no YAML": (("name: good", "name: [good"), "is not valid YAML"),
    "a key that is a list": (("name: good", "? [a]\n: b"), "a key must be plain text"),
    "a plugin that is not there": (("repetitions: 3", "plugins: [./none.py]"), "10:1: plugins: Plugin '"),
    "a tab": (("  - persistent", "\t- persistent"), "is not valid YAML"),
    "a control character": (("A good", "A \x07 good"), "is not valid YAML"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_one_names_the_place_and_the_remedy(tmp_path: Path, kind: str) -> None:
    (old, new), sentence = BAD[kind]
    assert old in GOOD
    with pytest.raises(ResidencyError) as failure:
        load(tmp_path, GOOD.replace(old, new))
    assert str(failure.value).startswith(str(tmp_path / "bad.yaml"))
    assert sentence in str(failure.value)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("{one: embedded}", "{one: " + "a" * 300 + "}"),
        ("{one: embedded}", '{one: "/tmp/\\0x"}'),
        ("{one: embedded}", '{one: "~nouser/x"}'),
        ("{one: embedded}", "{one: synthetic:nope}"),
        ("{one: embedded}", "{one: nonsense}"),
        ("texts:\n  - A good day.\n  - No", 'texts: {file: "a\\0b"}'),
        ("texts:\n  - A good day.\n  - No", "texts: {file: /dev/zero}"),
        ("texts:\n  - A good day.\n  - No", "texts: {file: .}"),
        ("repetitions: 3", 'plugins: ["\\0.py"]'),
        ("label: two", r'label: "two\e[31m"'),
        ("label: two", r'label: "two\nlines"'),
    ],
)
def test_odd_paths_references_and_labels_are_refused_in_a_sentence(tmp_path: Path, old: str, new: str) -> None:
    assert old in GOOD
    with pytest.raises(ResidencyError) as failure:
        load(tmp_path, GOOD.replace(old, new))
    assert str(failure.value).startswith(str(tmp_path / "bad.yaml:"))
    assert str(failure.value).isprintable()


def test_a_device_or_a_fifo_is_no_experiment(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (Path("/dev/zero"), tmp_path / "fifo"):
        with pytest.raises(ResidencyError, match="is not a regular file"):
            load_experiment(path)


def test_flags_out_of_range_are_a_sentence(tmp_path: Path) -> None:
    for overrides, sentence in (
        (Overrides(repetitions=2_000_000), "--repetitions: "),
        (Overrides(repeats=5000), "--repeats: "),
        (Overrides(models={"bad/id": "embedded"}), "--model: "),
    ):
        with pytest.raises(ResidencyError, match=sentence):
            load(tmp_path, GOOD, overrides)


HOSTILE = {
    "aliases": "a0: &a0 [x, x, x]\n" + "".join(f"a{i}: &a{i} [{f'*a{i - 1}, ' * 9}]\n" for i in range(1, 9)),
    "nesting in flow": "name: " + "[" * 100_000,
    "nesting in blocks": "".join(" " * i + "a:\n" for i in range(1000)),
    "nesting in keys": "{" * 50_000,
    "ten megabytes": "texts:\n" + "  - x\n" * 1_800_000,
    "many values": "texts: [" + "1," * 400_000 + "]",
    "one long scalar": "name: " + "x" * 900_000,
    "a long number": "repetitions: " + "9" * 500_000,
    "many keys": "".join(f"k{i}: 1\n" for i in range(80_000)),
}  # fmt: skip


@pytest.mark.process
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_one_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    """Generous on a loaded machine; the promise of a second is measured by the runner's own command."""
    tracemalloc.start()
    started = time.process_time()
    with pytest.raises(ResidencyError) as failure:
        load(tmp_path, HOSTILE[kind])
    seconds, memory = time.process_time() - started, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(str(failure.value)) < 1000
    assert memory < 100 << 20
    assert seconds < 10


def test_a_binary_file_and_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ResidencyError, match="not UTF-8"):
        load_experiment(tmp_path / "binary.yaml")
    with pytest.raises(ResidencyError, match="cannot be read: No such file"):
        load_experiment(tmp_path / "none.yaml")
    with pytest.raises(ResidencyError, match="is not a regular file"):
        load_experiment(tmp_path)


def test_texts_from_a_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("One.\n\nTwo.\n")
    plan = load(tmp_path, GOOD.replace("texts:\n  - A good day.\n  - No", "texts: {file: texts.txt}"))
    assert plan.texts == ("One.", "Two.")


def test_a_trial_is_called_after_its_loader_where_there_are_several(tmp_path: Path) -> None:
    def labels(strategies: str) -> list[str]:
        text = GOOD.replace("  - {strategy: lru-cached, options: {capacity: 2}, label: two}\n", strategies)
        return [trial.label for trial in load(tmp_path, text).trials]

    several = "  - on-demand\n  - {strategy: on-demand, loader: mapped}\n  - {strategy: on-demand, label: mine}\n"
    assert labels(several) == ["persistent, onnxruntime", "on-demand, onnxruntime", "on-demand, mapped", "mine"]
    assert labels("  - on-demand\n") == ["persistent", "on-demand"]


def test_and_after_its_dtype_where_that_is_not_float32(tmp_path: Path) -> None:
    small = "label: two}\n  - {strategy: persistent, loader: {name: onnxruntime, dtype: int8}}"
    plan = load(tmp_path, GOOD.replace("label: two}", small))
    assert [(trial.label, trial.dtype) for trial in plan.trials] == [
        ("persistent, onnxruntime", "float32"),
        ("two", "float32"),
        ("persistent, onnxruntime int8", "int8"),
    ]


def test_where_no_loader_is_named_it_is_the_default(tmp_path: Path) -> None:
    assert {trial.choice.loader.name for trial in load(tmp_path, GOOD).trials} == {"onnxruntime"}


def test_a_local_model_beside_it(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    plan = load(tmp_path, GOOD.replace("{one: embedded}", "{one: mine, two: org/name@main}"))
    assert plan.experiment.models == {"one": str(tmp_path / "mine"), "two": "org/name@main"}


def test_the_command_line_overrides_the_file(tmp_path: Path) -> None:
    overrides = Overrides(repetitions=1, repeats=7, strategies=["lru-cached"], models={"one": "synthetic:bert-base"})
    plan = load(tmp_path, GOOD, overrides)
    assert (plan.requests, plan.experiment.repeats) == (2, 7)
    assert [trial.label for trial in plan.trials] == ["two"]
    assert plan.experiment.models == {"one": "synthetic:bert-base"}
    with pytest.raises(ResidencyError, match=r"has no 'three'. It has: 'persistent', 'two'"):
        load(tmp_path, GOOD, Overrides(strategies=["three"]))


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_experiment_asks_a_question_and_is_named_after_its_file(path: Path) -> None:
    plan = load_experiment(path)
    assert plan.question.endswith("?")
    assert plan.experiment.name == path.stem


def test_sizes_and_a_limit_can_be_written_and_read_again(tmp_path: Path) -> None:
    sizes = "[{memory: 512MiB, cpu: 0.25, hour: 0.0123}, {memory: 1GiB, cpu: 0.5, hour: 0.0247}]"
    plan = load(tmp_path, GOOD + f"cost: {{billing: size, sizes: {sizes}}}\nlimit: {{memory: 300MiB}}\n")
    write_experiment(tmp_path, plan)
    again = load_experiment(tmp_path / "experiment.yaml").experiment
    assert (again.cost, again.limit) == (plan.experiment.cost, plan.experiment.limit)
    assert again.limit is not None
    assert (again.limit.memory, [size.memory for size in again.cost.sizes]) == (300 << 20, [512 << 20, 1 << 30])
