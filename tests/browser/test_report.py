"""The report of a run, in a real browser and without one."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.cli.run_report import said
from core.report.html import report
from core.results.answers import RoundsLacking
from core.results.card import Card, Settings
from core.results.economics import BreakEven, Economics, PricesUsed, TrialCosts
from core.results.environment import Environment
from core.results.flips import MeasuredFlip, Rates
from core.results.summary import Summary
from tests.helpers.browsing import CONTRASTS
from tests.helpers.priced import costing, ended_with
from tests.helpers.support import FAKES, ROOT, checkpoint_in, run_python
from tests.helpers.synthetic import arranged, lines_in, summarised

WIDTHS = (390, 768, 1280)
MARKUP = "<img src=x onerror=alert(1)> & $\\frac{ 模"
KEPT = "=kept"
# Of each figure: its name, its box, how many strokes and shapes it has, and the boxes of what it says.
FIGURES = """() => [...document.querySelectorAll("figure > svg")].map((svg) => {
  const box = (node) => {
    const {left, top, right, bottom} = node.getBoundingClientRect();
    return [left, top, right, bottom];
  };
  const drawn = (node) => node.getBBox().width + node.getBBox().height > 0;
  return {
    name: svg.parentElement.id, box: box(svg), role: svg.getAttribute("role"),
    told: svg.getAttribute("aria-labelledby").split(" ").map((id) => document.getElementById(id).textContent),
    shapes: [...svg.querySelectorAll("path, use")].filter(drawn).length,
    texts: [...svg.querySelectorAll("text")].map((node) => [node.textContent, ...box(node)]),
  };
})"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real small run: two models that take turns in a cache with room for one."""
    place = tmp_path_factory.mktemp("report")
    for name in "ab":
        checkpoint_in(place / name)
    values = {
        "name": "quick",
        "plugins": [FAKES],
        "models": {name: str(place / name) for name in "ab"},
        "strategies": [{"strategy": "lru-cached", "loader": "fake", "options": {"capacity": 1}, "label": MARKUP}],
        "texts": ["good", "bad"],
        "repetitions": 60,
        "repeats": 1,
    }
    (place / "quick.yaml").write_text(f"# Is it <b>quick</b>?\n{yaml.safe_dump(values)}")
    done = run_python(str(ROOT / "runner.py"), str(place / "quick.yaml"), "--output", str(place / "out"))
    assert done.returncode == 0, done.stderr
    [found] = (place / "out" / "quick").glob("2*")
    return found


def with_a_second(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same again under another label, as if it had loaded nothing, where there is no /proc."""
    warm = {"trial": KEPT, "cold": False, "timing": {}, "events": [], "timeline": None, "mean_rss": None}
    copies = [record | {key: value for key, value in warm.items() if key in record} for record in records[1:]]
    [trial] = records[0]["trials"]
    return [records[0] | {"trials": [trial, trial | {"label": KEPT}]}, *records[1:], *copies]


def page_of(records: list[dict[str, Any]], environment: Environment | None = None, **changes: object) -> str:
    """The page of a run, with those parts of its summary changed."""
    return page(records, summarised(records).model_copy(update=changes), environment)


def page(records: list[dict[str, Any]], summary: Summary, environment: Environment | None) -> str:
    return report(summary, arranged(records), said(summary), environment)


def environment_of(folder: Path) -> Environment:
    return Environment.model_validate_json((folder / "environment.json").read_bytes())


def costs(label: str, holding: float, request: float, **known: float) -> TrialCosts:
    """Of a trial whose cost at other rates is known, too."""
    figures = dict.fromkeys(TrialCosts.model_fields) | {"charged_mib": 100.0} | known
    line = {"label": label, "is_line": True, "holding_per_hour": holding, "per_request": request}
    return TrialCosts.model_validate(figures | line)


def economics() -> Economics:
    """Of two trials."""
    even = BreakEven(
        trial=KEPT, against=MARKUP, cheaper_below=KEPT, cheaper_above=MARKUP, rate_per_hour=3333.0,
        ci95=(3000.0, 4000.0), capped_per_hour=None, reason=None, settled=True, rounds=5,
    )  # fmt: skip
    prices = PricesUsed(
        memory_gib_hour=0.004445, cpu_hour=0.04048, latency_hour=0.0, charge="pss", billing="average", sizes=()
    )
    one, other = costs(MARKUP, 2e-3, 1e-7, capacity_rps=300.0), costs(KEPT, 1e-3, 4e-7, per_million=3.0)
    return Economics(prices=prices, trials=[one, other], break_even=[even], unpriced={})


@contextmanager
def opened(browser: Any, path: Path, **options: Any) -> Iterator[Any]:
    """The file in a browser, which must stay silent and ask for nothing else."""
    page = browser.new_page(**options)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(f"uncaught: {error}"))
    page.on("request", lambda request: asked.append(request.url))
    try:
        page.goto(path.as_uri())
        yield page
        assert said == []
        assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
    finally:
        page.close()


@pytest.fixture(scope="module")
def priced(folder: Path) -> Path:
    """The run's page, with what its deployment costs."""
    card = Card(
        recommended=KEPT,
        runner_up=MARKUP,
        answer=[MeasuredFlip(at=3333.0, to=KEPT, instead=MARKUP)],
        notes=[],
        settings=[
            Settings(
                label=KEPT, rates=Rates(start=0.0, end=3333.0), route="/predict", yaml="strategies: [persistent]\n"
            )
        ],
        settles=None,
    )
    records = with_a_second(lines_in(folder))
    page = page_of(records, environment_of(folder), economics=economics(), card=card)
    (folder / "priced.html").write_text(page)
    return folder / "priced.html"


def test_it_is_rebuilt_from_the_samples_alone(folder: Path) -> None:
    """To the byte: nothing of it depends on the time or on chance."""
    assert "timeline" in {key for record in lines_in(folder) for key in record}
    summary = Summary.model_validate_json((folder / "summary.json").read_bytes())
    again = page(lines_in(folder), summary, environment_of(folder))
    assert again == (folder / "report.html").read_text()
    assert "environment.json is not there" in page_of(lines_in(folder))


def test_every_figure_is_drawn_and_fits(browser: Any, priced: Path) -> None:
    with opened(browser, priced) as page:
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            check_figures(page, width)


def check_figures(page: Any, width: int) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    figures = page.evaluate(FIGURES)
    assert [each["name"] for each in figures] == ["latency", "waterfall", "cost", "time-0", "time-1"]
    for each in figures:
        left, top, right, bottom = each["box"]
        assert 0 <= left < right <= width, each["name"]
        assert min(right - left, 480) >= min(300, 0.75 * width), each["name"]
        assert 0.3 < (bottom - top) / (right - left) < 1.5, each["name"]
        assert (each["role"], each["shapes"] > 5) == ("img", True), each["name"]
        assert all(told.strip() for told in each["told"])
        assert [text for text, *at in each["texts"] if not inside(at, each["box"])] == []
        assert overlapping(each["texts"]) == []
        assert min(at[3] - at[1] for _, *at in each["texts"]) >= 11  # pixels, of a line of text


def test_the_first_table_can_be_read_on_a_phone_without_scrolling(browser: Any, tmp_path: Path) -> None:
    """Whatever its figures are; the names of the default experiment are as long as usual."""
    names = [f"{name}, {loader}" for loader in ("onnxruntime", "transformers") for name in ("persistent", "on-demand")]
    labels = [*names, "lru-cached (2), onnxruntime"]
    records = costing({label: [(12345.0, 1.2)] * 5 for label in labels}, dict.fromkeys(labels, 12345.0))
    (tmp_path / "page.html").write_text(page_of(ended_with(records, labels[1], loads=12345)))
    with opened(browser, tmp_path / "page.html") as page:
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            around = page.locator(".scroll:has(#first)")
            assert 0 < around.evaluate("(node) => node.scrollWidth") <= around.evaluate("(node) => node.clientWidth")
            [rows] = page.evaluate("[[...document.querySelectorAll('#first tr')].map((row) => row.innerText)]")
            assert [len(row.split("\t")) for row in rows] == [6] * 6


def inside(box: list[float], other: list[float]) -> bool:
    return box[0] >= other[0] - 1 and box[1] >= other[1] - 1 and box[2] <= other[2] + 1 and box[3] <= other[3] + 1


def overlapping(texts: list[list[Any]]) -> list[tuple[str, str]]:
    """Pairs of texts that lie on each other by more than two pixels."""
    pairs = [(one, other) for i, one in enumerate(texts) for other in texts[:i]]
    return [
        (one[0], other[0])
        for one, other in pairs
        if min(one[3], other[3]) - max(one[1], other[1]) > 2 and min(one[4], other[4]) - max(one[2], other[2]) > 2
    ]


def test_it_can_be_read_in_light_in_dark_and_on_paper(browser: Any, priced: Path) -> None:
    with opened(browser, priced, viewport={"width": 768, "height": 900}) as page:
        for media, scheme in (("screen", "light"), ("screen", "dark"), ("print", "dark")):
            page.emulate_media(media=media, color_scheme=scheme)
            contrasts = dict(page.evaluate(CONTRASTS))
            assert {"memory (MiB)", "requests an hour", "All figures"} <= set(contrasts)
            assert {text: ratio for text, ratio in contrasts.items() if ratio < 4.5} == {}
            is_dark = (media, scheme) == ("screen", "dark")
            text = page.evaluate("getComputedStyle(document.querySelector('h1')).color")
            assert (int(text.split("(")[1].split(",")[0]) > 128) == is_dark
            line = page.evaluate("getComputedStyle(document.querySelector('.legend .s0')).stroke")
            drawn = page.evaluate(
                "[...document.querySelectorAll('#cost > svg path')].map((p) => getComputedStyle(p).stroke)"
            )
            assert line in drawn


def test_what_is_downloaded_is_what_was_measured(browser: Any, priced: Path) -> None:
    records = lines_in(priced.parent)
    with opened(browser, priced, viewport={"width": 1280, "height": 900}) as page:
        found = {}
        for link in page.locator("a.download").all():
            with page.expect_download() as waiting:
                link.click()
            text = Path(waiting.value.path()).read_text()
            found[waiting.value.suggested_filename] = list(csv.DictReader(StringIO(text)))
    assert list(found) == [
        *("trials.csv", "latencies.csv", "waterfall.csv", "prices.csv", "break-even.csv"),
        *("memory-and-loads.csv", "environment.csv"),
    ]
    assert [row["label"] for row in found["trials.csv"]] == [MARKUP, "'=kept"]  # not a spreadsheet's formula
    steady = [record["ms"] for record in records if record["kind"] == "sample" and not record["first"]]
    assert sorted(float(row["ms"]) for row in found["latencies.csv"]) == sorted(2 * steady)
    points = [row for row in found["memory-and-loads.csv"] if row["rss_mib"]]
    assert len(points) == sum(len(record["timeline"]["at"]) for record in records if record["kind"] == "trial")
    assert {row["trial"] for row in found["waterfall.csv"]} == {MARKUP}
    assert found["break-even.csv"][0]["rate_per_hour"] == "3333.0"


def test_a_trials_record_has_its_memory_over_time_and_its_loads(folder: Path) -> None:
    [trial] = [record for record in lines_in(folder) if record["kind"] == "trial"]
    at, mib = trial["timeline"]["at"], trial["timeline"]["rss_mib"]
    assert at == sorted(at)
    assert -1 < at[0] < at[-1] < trial["steady_s"] + 1
    assert trial["memory_mib"]["idle_private"] < min(mib) <= trial["mean_rss"] <= max(mib)
    assert max(mib) <= 1.05 * trial["memory_mib"]["peak_rss"]
    events = trial["events"]
    assert len(events) == trial["loads"] - 1 + trial["unloads"] > 200  # all but the first request's
    assert {(event["event"], event["reason"]) for event in events} == {("load", "request"), ("unload", "capacity")}
    assert [event["at"] for event in events] == sorted(event["at"] for event in events)
    assert events[-1]["at"] <= at[-1] + 0.01


def test_nothing_of_the_run_becomes_markup(priced: Path) -> None:
    page = priced.read_text()
    assert ">not known</text>" in page  # where there is no /proc
    assert "<img" not in page
    assert "<b>quick" not in page
    assert "Is it &lt;b&gt;quick&lt;/b&gt;?" in page
    assert "<script" not in page
    assert page.count("&lt;img src=x onerror=alert(1)&gt; &amp; $\\frac{") > 5


def test_a_run_with_little_data_has_a_page(folder: Path) -> None:
    """Results of an older version; requests that failed; no trial that ended."""
    whole = lines_in(folder)

    def changed(kind: str, **fields: Any) -> list[dict[str, Any]]:
        records = deepcopy(whole)
        for record in records:
            if record["kind"] == kind:
                record |= fields
        return records

    older = [{k: v for k, v in r.items() if k not in ("at", "timeline", "events", "mean_rss")} for r in whole]
    assert "These results hold no times." in page_of(older)
    failed = page_of(changed("sample", status=503, error="no room"))
    assert "No request was answered." in failed
    assert "answered 241 requests with an error" in failed
    unfinished = page_of([record for record in whole if record["kind"] != "trial"])
    assert "There is nothing to compare." in unfinished
    assert "did not run to the end" in unfinished
    undecided = Card(
        recommended=None,
        runner_up=None,
        answer=[],
        notes=[],
        settings=[],
        settles=RoundsLacking(lacking=1, repeats=5),
    )
    assert "This run does not support a choice" in page_of(whole, card=undecided, economics=None)
