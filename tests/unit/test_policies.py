"""The comparison of policies: its traffic, what each pays, its tables and figures."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from core.errors import FileError
from experiments.policies.command import main
from experiments.policies.compare import BUDGETS, COSTS, Cell, compare, ratios, timeouts
from experiments.policies.figures import figures
from experiments.policies.traffic import DAY, DRAWN, HOUR, Traffic, draw, read
from tests.helpers.support import ROOT

RATES = {  # requests a day, and models that can be requested
    "zipf": (33_000, 200),
    "diurnal": (33_000, 200),
    "bursty": (34_000, 150),
    "drifting": (33_000, 200),
    "looping": (33_000, 200),
    "timers": (33_000, 150),
    "few": (1440 * (1 + 1 / 4 + 1 / 16 + 1 / 64 + 1 / 256), 5),
    "sparse": (1000, 300),
    "strangers": (4000, 2020),
    "flips": (100 * 66 * 24 / 13, 100),
}


@pytest.mark.parametrize("name", DRAWN)
def test_drawn_traffic_has_the_rate_and_the_models_that_it_says(name: str) -> None:
    traffic = draw(name, days=1)
    rate, models = RATES[name]
    assert len(traffic.at) == pytest.approx(rate, rel=0.3)
    assert models * 0.7 <= len(traffic.mib) <= models * 1.06
    assert traffic.at == sorted(traffic.at)
    assert traffic.at[0] >= 0
    assert set(traffic.asked) == set(traffic.mib)
    assert all(40 <= mib <= 1300 for mib in traffic.mib.values())
    assert f"| {name} |" in (ROOT / "docs" / "policies.md").read_text()


def test_drawn_traffic_is_always_the_same() -> None:
    assert draw("zipf", days=0.1) == draw("zipf", days=0.1)
    assert draw("zipf", days=0.1) != draw("zipf", days=0.1, seed=1)


def test_each_kind_is_what_its_name_says() -> None:
    night, noon = np.histogram(draw("diurnal", days=1).at, [0, DAY / 6, DAY / 3, DAY / 2, DAY * 2 / 3])[0][[0, 3]]
    assert noon > 3 * night
    looping = draw("looping", days=1)
    assert Counter(looping.asked[::2]).most_common(1)[0][1] <= len(looping.asked) / 2 / 200 + 1
    strangers = Counter(Counter(draw("strangers", days=1).asked).values())
    assert strangers[1] > 1900
    drifting = draw("drifting", days=0.25)
    hours = [
        Counter(m for at, m in zip(drifting.at, drifting.asked, strict=True) if at // (2 * HOUR) == i) for i in (0, 1)
    ]
    assert hours[0].most_common(1)[0][0] != hours[1].most_common(1)[0][0]
    timers = draw("timers", days=0.5)
    [often] = [model for model, _ in Counter(timers.asked).most_common(1)]
    gaps = np.diff([at for at, model in zip(timers.at, timers.asked, strict=True) if model == often])
    assert gaps.std() / gaps.mean() == pytest.approx(0.05, rel=0.2)
    assert np.median(np.diff(draw("bursty", days=0.1).at)) < 5


def test_a_traffic_of_two_requests_costs_what_can_be_counted_by_hand() -> None:
    """The gap is three times k/m: the best is to load twice, and `auto` holds the model for k/m each time."""
    costs = COSTS[-1]
    model = costs.model(1024.0)
    k_over_m = model.cold_start / model.holding
    traffic = Traffic("two", [0.0, 3 * k_over_m], ["a", "a"], {"a": 1024.0})
    assert model.load_seconds == 9
    assert model.cold_start == pytest.approx((9 * 1.04048 + 9 * 0.004445) / 3600)
    paid = {cell.policy: cell.money / model.cold_start for cell in timeouts(traffic, costs)}
    assert paid == pytest.approx({"clairvoyant": 2, "auto": 3, "learned": 3})
    assert {cell.cold for cell in timeouts(traffic, costs)} == {1.0}


def test_a_traffic_has_a_cell_for_each_costs_budget_and_policy() -> None:
    found = ratios(compare(draw("few", days=0.2)))
    assert [(each.costs, each.budget) for each in found] == [
        *((costs.name, 1.0) for costs in COSTS),
        *(("C", budget) for budget in BUDGETS),
    ]
    assert all(each.of("auto", "clairvoyant") >= 1 for each in found[: len(COSTS)])
    assert all(each.of("lru", "lru") == 1 for each in found[len(COSTS) :])


def cell(policy: str, money: float, budget: float = 1.0) -> Cell:
    return Cell("ours", 10, 2, "C", budget, policy, money, 0.5)


def test_a_cell_above_its_bound_is_a_sentence() -> None:
    dear, cheap = ratios([cell("auto", 1.0), cell("learned", 1.02), cell("lru", 1.0, 0.4), cell("best", 1.02, 0.4)])
    assert dear.excess == "ours, costs C: learned costs 1.020 × auto, more than 1.01 ×."
    assert cheap.excess is None
    [budget] = ratios([cell("lru", 1.0, 0.4), cell("best", 1.05, 0.4)])
    assert budget.excess == "ours, costs C, budget 40%: best costs 1.050 × lru, more than 1.03 ×."


@pytest.mark.process
def test_the_figures_have_a_row_for_each_traffic_and_words() -> None:
    cells = [cell("clairvoyant", 1.0), cell("auto", 2.0), cell("learned", 1.5)]
    cells += [cell(policy, 1.0, 0.4) for policy in ("lru", "best", "sieve", "aged-gdsf")]
    short, details = figures(ratios(cells))
    assert "ours 0.75" in short.words
    assert "ours 2.00, 1.50" in details.words
    for drawing in (short, details):
        assert drawing.svg.count(">ours<") == 2


@pytest.mark.process
def test_the_command_writes_results_from_which_the_figures_are_drawn_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "requests.csv").write_text("time,model\n5,b\n0,a\n9.5,a\n")
    (tmp_path / "sizes.csv").write_text("model,mb\na,100\nb,50\nc,1\n")
    own = ("--trace", f"ours={tmp_path / 'requests.csv'}", "--sizes", f"{tmp_path / 'sizes.csv'}:mb")
    assert main(["--only", "", *own, "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert said.endswith("No cell is above its bound.\n")
    assert said.startswith("| traffic   | A ")
    assert "\n| ours      | 1.000 | " in said
    first = (tmp_path / "policies.svg").read_text()
    (tmp_path / "policies.svg").unlink()
    assert main(["--drawn-from", str(tmp_path / "results.csv"), "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == said
    assert len((tmp_path / "policies.svg").read_text()) == len(first)


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    requests, sizes = tmp_path / "requests.csv", tmp_path / "sizes.csv"
    with pytest.raises(FileError, match=r"sizes.csv: cannot be read: No such file"):
        read("ours", requests, sizes)
    sizes.write_text("model,mib\na,1\n")
    requests.write_text("when,model\n1,a\n")
    with pytest.raises(FileError, match=r"requests.csv: its first line has no column 'time', but when, model\."):
        read("ours", requests, sizes)
    requests.write_text("time,model\n1,a\nsoon,a\n")
    with pytest.raises(FileError, match=r"requests.csv:3: 'time' must be a number from 0, not 'soon'\."):
        read("ours", requests, sizes)
    requests.write_text("time,model\n1,b\n")
    with pytest.raises(FileError, match=r"sizes.csv: has no size of the model 'b', which .*requests.csv requests"):
        read("ours", requests, sizes)
    requests.write_text("time,model\n")
    with pytest.raises(FileError, match=r"requests.csv: has no request\."):
        read("ours", requests, sizes)
    with pytest.raises(FileError, match=r"requests.csv: cannot be made a folder \(File exists\)"):
        main(["--out", str(requests)])
    with pytest.raises(FileError, match=r"none.csv: cannot be read: No such file"):
        main(["--drawn-from", str(tmp_path / "none.csv")])
    with pytest.raises(FileError, match=r"sizes.csv: is not a results.csv of this command, with the columns traffic, "):
        main(["--drawn-from", str(sizes)])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--trace", "a.csv"], "each --trace needs a --sizes, in the same order"),
        (["--only", "few,fwe"], "there is no fwe; there are: zipf, "),
        (["--only", ""], '--only "" leaves nothing to compare; add --trace and --sizes'),
        (["--days", "0"], "--days must be more than 0"),
    ],
)
def test_arguments_that_cannot_be_followed_are_a_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert sentence in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", DRAWN)
def test_no_cell_of_drawn_traffic_is_above_its_bound(name: str) -> None:
    assert [each.excess for each in ratios(compare(draw(name))) if each.excess] == []


def test_what_is_published_holds_the_bounds() -> None:
    """`experiments/policies/results.csv` is what docs/policies.md shows."""
    from experiments.policies import compare as comparison

    found = ratios(comparison.read(ROOT / "experiments" / "policies" / "results.csv"))
    assert {each.traffic for each in found} == {*DRAWN, "Azure Functions 2019", "ServeGen"}
    assert [each.excess for each in found if each.excess] == []
    page = (ROOT / "docs" / "policies.md").read_text()
    for each in found:
        policy, base = ("learned", "auto") if "auto" in each.cells else ("best", "lru")
        assert f"{each.of(policy, base):.3f}" in page, each
