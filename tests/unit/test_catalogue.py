"""The models that a trace names: their sizes, and what each takes, from models of other sizes."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from time import process_time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from pydantic import ValidationError

from core.errors import FileError, ResultsError
from core.planning.by_size import line_of, loads_of
from core.planning.catalogue import DrawnSizes, SizesFile, TraceModels, of_sizes, sizes_of
from core.planning.draws import draws_of
from core.planning.profile import ModelProfile, Profile
from core.planning.seconds import Seconds
from core.results.plan_findings import LoadsBySize

LOADS = {"small": (0.018, 0.022), "large": (0.09, 0.11)}  # 10 ms and 0.5 ms for each MiB, give or take a tenth


def model(name: str, mib: float, forward: float) -> ModelProfile:
    return ModelProfile(
        warm=Seconds([forward]), first=Seconds([2 * forward]), load=Seconds(LOADS[name]), unload=0.0,
        further=forward, around=0.0, around_cold=0.0, weights_mib=mib, mib=0.8 * mib, request_cpu=forward,
        load_cpu=0.008 + 0.0004 * mib,
    )  # fmt: skip


def measured() -> Profile:
    models = {"small": model("small", 20.0, 0.005), "large": model("large", 180.0, 0.05)}
    return Profile("onnxruntime", {}, 300.0, models, (), loads=LOADS)


def sizes_file(folder: Path, text: str, name: str = "sizes.csv") -> SizesFile:
    (folder / name).write_text(text)
    return SizesFile(file=name)


def refusal(folder: Path, sizes: SizesFile, *models: str) -> str:
    with pytest.raises(FileError) as caught:
        sizes_of(sizes, models, 0, folder)
    return str(caught.value)


@settings(deadline=None)  # the first call imports scipy
@given(some.integers(0, 1000), some.integers(0, 1000), some.sets(some.integers(1, 3000), min_size=2, max_size=6))
def test_a_line_is_recovered(start_ms: int, per_100_mib_ms: int, sizes: set[int]) -> None:
    start, per_mib = start_ms / 1e3, per_100_mib_ms / 1e5
    line = line_of({float(mib): start + per_mib * mib for mib in sizes})
    for mib in sizes:
        assert line.at(mib) == pytest.approx(start + per_mib * mib, rel=1e-6, abs=1e-9)


def test_a_line_neither_begins_nor_falls_below_0() -> None:
    falling, steep = line_of({10.0: 2.0, 100.0: 1.0}), line_of({10.0: 0.001, 100.0: 1.0})
    assert falling.per_mib_s == 0
    assert 1.0 < falling.start_s < 2.0
    assert steep.start_s == 0


def test_loads_lie_on_the_line_and_vary_around_it_as_measured() -> None:
    made = of_sizes(measured(), {"a": 20.0, "b": 100.0, "c": 1000.0})
    a, b, c = made.models.values()
    assert [each.load_s for each in (a, b, c)] == pytest.approx([0.02, 0.06, 0.51])
    assert [each.load_cpu for each in (a, b, c)] == pytest.approx([0.016, 0.048, 0.408])
    assert [each.mib for each in (a, b, c)] == pytest.approx([16.0, 80.0, 800.0])
    [note] = made.notes
    assert isinstance(note, LoadsBySize)
    assert (note.models, note.measured_mib, note.planned_mib) == (2, (20.0, 180.0), (20.0, 1000.0))
    assert (note.start_ms, note.ms_per_mib) == pytest.approx((10.0, 0.5))
    assert note.spread == pytest.approx(0.1)
    drawn = draws_of(list(made.models.values()), seed=0).load[2]
    assert {round(each, 3) for each in islice(drawn, 100)} == {0.459, 0.561}


def test_forward_passes_are_those_of_the_nearest_model() -> None:
    made = of_sizes(measured(), {"a": 59.0, "b": 61.0}).models  # the middle of 20 and 180, as a ratio, is 60
    assert (made["a"].warm, made["b"].warm) == ((0.005,), (0.05,))
    assert (made["a"].request_cpu, made["b"].request_cpu) == (0.005, 0.05)


def test_one_size_says_nothing_of_others() -> None:
    with pytest.raises(ResultsError, match="only loads of models of about 22 MiB were measured") as caught:
        loads_of({"a": (1.0,), "b": (1.0,)}, {"a": 20.0, "b": 22.0}, {"a": 1.0, "b": 1.0})
    assert "measure two models of different size" in str(caught.value)


def test_loads_of_no_time_stay_so() -> None:
    loads = loads_of({"a": (0.0,), "b": (0.0,)}, {"a": 20.0, "b": 40.0}, {"a": 0.0, "b": 0.0})
    assert (loads.seconds.at(30.0), loads.processor.at(30.0), loads.ratios) == (0.0, 0.0, (1.0,))


def test_ten_thousand_models_are_made_drawn_and_priced_quickly() -> None:
    """They share what was measured."""
    values = Seconds(np.linspace(0.01, 0.03, 5000).tolist())
    profile = measured()
    loads = dict.fromkeys(LOADS, values)
    sizes = sizes_of(DrawnSizes.model_validate({"log_uniform": ["40MiB", "1.3GiB"]}), ids(10_000), 0, Path())
    began = process_time()
    models = list(of_sizes(Profile("x", {}, 0.0, profile.models, (), loads=loads), sizes).models.values())
    draws = draws_of(models, 0)
    assert sum(each.waiting_s for each in models) > 0
    assert process_time() - began < 5
    assert len(draws.load) == 10_000
    assert len({id(each.load) for each in models}) == 1


def ids(count: int) -> list[str]:
    return [f"app-{number}" for number in range(count)]


def test_a_drawn_size_depends_on_the_seed_and_the_id_alone() -> None:
    drawn = DrawnSizes.model_validate({"log_uniform": ["40MiB", "1.25GiB"]})
    many = sizes_of(drawn, ids(2000), 1, Path())
    assert sizes_of(drawn, ["app-7"], 1, Path())["app-7"] == many["app-7"]
    assert sizes_of(drawn, ["app-7"], 2, Path())["app-7"] != many["app-7"]
    logs = np.log(list(many.values()))
    assert (min(many.values()) >= 40, max(many.values()) <= 1280) == (True, True)
    assert np.quantile(logs, [0.25, 0.5, 0.75]) == pytest.approx(
        np.log(40) + np.array([0.25, 0.5, 0.75]) * np.log(32), abs=0.1
    )


def test_sizes_are_read_in_their_unit(tmp_path: Path) -> None:
    plain = sizes_file(tmp_path, "model,mib\na,50\nb,1e2\nunused,7\n")
    assert sizes_of(plain, ["a", "b"], 0, tmp_path) == {"a": 50.0, "b": 100.0}
    (tmp_path / "other.csv").write_text("model,average_memory_mb\na,141\n")
    other = SizesFile(file="other.csv", column="average_memory_mb", unit="MB")
    assert sizes_of(other, ["a"], 0, tmp_path)["a"] == pytest.approx(141e6 / 2**20)
    lines = sizes_file(tmp_path, json.dumps({"model": "a", "mib": 12.5}) + "\n", "sizes.jsonl")
    assert sizes_of(lines, ["a"], 0, tmp_path) == {"a": 12.5}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("model,mib\na,50\n", "sizes.csv: has no size for 2 of the trace's models; add a row for each: 'b', 'c'."),
        ("model,mb\na,50\n", "sizes.csv:2: has no 'mib'; it has model, mb. Name the column of the sizes, as in sizes:"),
        ("app,mib\na,50\n", "sizes.csv:2: has no 'model'; it has app, mib. Call the column of the ids 'model'."),
        ("model,mib\na,0\n", "sizes.csv:2: '0' is not the size of 'a'; write a number above 0."),
        ("model,mib\na,-1\n", "'-1' is not the size of 'a'"),
        ("model,mib\na,nan\n", "'nan' is not the size of 'a'"),
        ("model,mib\na,large\n", "'large' is not the size of 'a'"),
        ("model,mib\na,1\na,2\n", "sizes.csv:3: gives the size of 'a' again; keep one."),
        ("model,mib\na,\n", "sizes.csv:2: has no 'mib'"),
        ("model,mib\na\n", "sizes.csv:2: is a short row"),
    ],
)
def test_what_is_wrong_with_sizes_is_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    assert sentence in refusal(tmp_path, sizes_file(tmp_path, text), "a", "b", "c")


def test_sizes_that_cannot_be_read_are_a_sentence(tmp_path: Path) -> None:
    assert "none.csv: cannot be read" in refusal(tmp_path, SizesFile(file="none.csv"), "a")
    assert "a list of sizes is a .csv or a .jsonl file" in refusal(tmp_path, SizesFile(file="sizes.txt"), "a")


@pytest.mark.parametrize(
    "sizes", [["1GiB", "40MiB"], ["0MiB", "1GiB"], ["40MiB"], ["a", "b"]], ids=lambda each: ", ".join(each)
)
def test_sizes_are_drawn_between_two(sizes: list[str]) -> None:
    with pytest.raises(ValidationError):
        TraceModels.model_validate({"trace": True, "sizes": {"log_uniform": sizes}})
