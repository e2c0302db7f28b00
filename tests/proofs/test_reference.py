"""The parts of the documentation that are generated from the code: flags, keys, options, metrics and records."""

from __future__ import annotations

import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import jsonschema_rs
import pytest

from core.results.header import RunHeader
from core.results.records import RECORD, Sample
from core.serving.metrics import Metrics
from scripts import reference, schemas
from tests.helpers.priced import costing
from tests.helpers.support import ROOT
from tests.helpers.synthetic import summarised

DOCS = ROOT / "docs"
PHONE = {"width": 390, "height": 844}
COMPLETION = 'eval "$(_RESIDENCY_COMPLETE={shell}_source residency)"'
# Of each table: its first row, how wide it is, and how much of that is seen without scrolling.
WIDTHS = """() => [...document.querySelectorAll("article table")].map((table) => {
  let box = table;
  while (!["auto", "scroll"].includes(getComputedStyle(box).overflowX) && box.parentElement) box = box.parentElement;
  return [table.rows[0].innerText, box.scrollWidth, Math.min(box.clientWidth, document.documentElement.clientWidth)];
})"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the documentation."""
    return Path(shutil.copytree(DOCS, tmp_path / "docs"))


def test_the_pages_say_what_the_code_says() -> None:
    """If this fails: python -m scripts.reference"""
    assert [str(path.relative_to(ROOT)) for path in reference.stale(DOCS)] == []


STALE = [  # a page, a text in its generated parts, and what the text might have been before
    ("command-line.md", "`--repeats N`", "`--rounds N`"),
    ("serving.md", "| `RESIDENCY_MAX_TEXTS` | `256` |", "| `RESIDENCY_MAX_TEXTS` | `255` |"),
    ("serving.md", "| `lru-cached` | `capacity` | whole number |", "| `lru-cached` | `capacity` | number |"),
    ("experiments.md", "| `repeats` | `5` |", "| `repeats` | `6` |"),
    ("traffic.md", "| `open` | `rate` | required |", "| `open` | `rate` | none |"),
    ("planning.md", "| `confirm` | ", "| `confirmed` | "),
    ("economics.md", "| `cpu_hour` | `0.04048` |", "| `cpu_hour` | `0.0405` |"),
    ("loaders.md", "| `subprocess` | `deadline` |", "| `subprocess` | `limit` |"),
    ("production.md", "| `residency_batch_texts` | histogram |", "| `residency_batch_texts` | gauge |"),
    ("results.md", "| `lag_ms` | number or null", "| `lag_ms` | integer or null"),
    ("results.md", "| `labels_agree` | Whether", "| `labels_agree` | If"),
    ("schema/records.json", '"lag_ms"', '"lag"'),
    ("schema/summary.json", '"first_answer_s"', '"first_answer"'),
]


def test_stale_pages_are_found_and_written_anew(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = sorted({folder / page for page, _, _ in STALE})
    right = {path: path.read_text() for path in paths}
    for page, text, other in STALE:
        assert text in right[folder / page]
        (folder / page).write_text((folder / page).read_text().replace(text, other))
    stale = {path: path.read_text() for path in paths}
    assert reference.main(["--check", "--folder", str(folder)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert sorted(said) == sorted(f"{path}: stale; run python -m scripts.reference" for path in paths)
    assert {path: path.read_text() for path in paths} == stale
    assert reference.main(["--folder", str(folder)]) == 0
    assert sorted(capsys.readouterr().out.splitlines()) == sorted(f"{path}: written" for path in paths)
    assert {path: path.read_text() for path in paths} == right
    assert reference.main(["--check", "--folder", str(folder)]) == 0


def test_a_part_that_no_page_has_is_refused(folder: Path) -> None:
    page = folder / "production.md"
    page.write_text(page.read_text().replace("<!-- generated: metrics -->", ""))
    with pytest.raises(ValueError, match="each part must stand in one page: metrics"):
        reference.pages(folder)


def test_a_part_that_nothing_makes_is_refused(folder: Path) -> None:
    (folder / "new.md").write_text("<!-- generated: nothing -->\n<!-- end -->\n")
    with pytest.raises(ValueError, match="each part must stand in one page: nothing"):
        reference.pages(folder)


@pytest.mark.parametrize(("name", "make"), reference.parts().items(), ids=reference.parts())
def test_every_row_says_what_it_means(name: str, make: Any) -> None:
    rows = [line for line in make().splitlines() if line.startswith("| `")]
    assert rows
    for row in rows:
        *_, meaning = re.split(r"(?<!\\)\|", row.strip("| "))
        assert re.fullmatch(r"\S.*[.)`]", meaning.strip()), row


def test_the_table_of_metrics_is_what_is_scraped() -> None:
    metrics = Metrics()
    scraped = metrics.scrape().decode()
    for name, kind, labels, text in metrics.definitions:
        assert re.search(rf"^# TYPE {name} {kind}$", scraped, re.MULTILINE)
        assert re.search(rf"^# HELP {name} {re.escape(text.removesuffix('; always 1'))}$", scraped, re.MULTILINE)
        assert len(set(labels)) == len(labels)
    assert scraped.count("# TYPE ") == len(metrics.definitions)


def test_the_schema_accepts_records_and_nothing_else() -> None:
    schema = jsonschema_rs.validator_for(schemas.record_schema())
    sample = Sample(round=0, trial="a", model="m", text=0, first=False, ms=1.5, status=503, error="busy")
    written = RECORD.dump_python(sample, mode="json")
    assert schema.is_valid(written)
    assert not schema.is_valid(written | {"seconds": 1})
    assert not schema.is_valid(written | {"kind": "samples"})
    assert not schema.is_valid(written | {"ms": "1.5"})


def test_the_summarys_schema_accepts_a_summary_and_nothing_else() -> None:
    schema = jsonschema_rs.validator_for(schemas.summary_schema())
    written = summarised(costing({"kept": [(500.0, 0.01)] * 5, "loaded": [(400.0, 0.06)] * 5})).model_dump(
        mode="json", by_alias=True
    )
    assert schema.is_valid(written)
    for key in ("strategy", "label", "requests", "errors", "loads", "labels_agree", "latency_ms", "first_answer_s"):
        trial = written["trials"][0] | {key: {"other": "form"}}
        assert not schema.is_valid(written | {"trials": [trial]}), key


def test_the_schema_names_fields_as_they_are_written() -> None:
    properties = schemas.record_schema()["$defs"][RunHeader.__name__]["properties"]
    assert "schema" in properties
    assert "schema_version" not in properties


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """The environment in which `residency` is a command, as after an installation."""
    command = tmp_path / "residency"
    command.write_text(f"#!{sys.executable}\nfrom core.cli.main import main\nraise SystemExit(main())\n")
    command.chmod(0o755)
    return os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["re"], "resume report"),
        (["run", "--rep"], "--repetitions --repeats"),
        (["plan", "x.yaml", "--c"], "--confirm"),
    ],
)
def test_bash_completes_commands_and_flags(words: list[str], found: str, installed: dict[str, str]) -> None:
    line = COMPLETION.format(shell="bash")
    assert line in (DOCS / "command-line.md").read_text()
    typed = f"COMP_WORDS=(residency {' '.join(words)}); COMP_CWORD={len(words)}; _residency_completion residency"
    script = f'{line}\n{typed}\necho "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-euc", script], env=installed, capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == (found, "")


def test_bash_completes_the_folder_of_a_run(installed: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results.txt").touch()
    variables = {"COMP_WORDS": "residency resume res", "COMP_CWORD": "2", "_RESIDENCY_COMPLETE": "bash_complete"}
    done = subprocess.run(
        ["residency"], env=installed | variables, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "dir,res\n"


def test_zsh_completes_commands_and_flags(installed: dict[str, str]) -> None:
    line = COMPLETION.format(shell="zsh")
    assert line in (DOCS / "command-line.md").read_text()
    script = subprocess.run(
        ["bash", "-euc", line.replace("eval", "echo")], env=installed, capture_output=True, text=True, check=True
    )
    assert "#compdef residency" in script.stdout
    assert "_RESIDENCY_COMPLETE=zsh_complete residency" in script.stdout
    variables = {"COMP_WORDS": "residency co", "COMP_CWORD": "1", "_RESIDENCY_COMPLETE": "zsh_complete"}
    done = subprocess.run(["residency"], env=installed | variables, capture_output=True, text=True, check=True)
    assert re.findall(r"^plain\n(\w+)$", done.stdout, re.MULTILINE) == ["compare", "convert"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the built documentation is served."""
    mkdocs = shutil.which("mkdocs")
    if mkdocs is None:
        pytest.skip("the site's tests need MkDocs: pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [mkdocs, "build", "--strict", "--site-dir", str(folder)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    handler = functools.partial(_Silent, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class _Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


def test_the_table_of_a_run_is_read_on_a_phone_without_scrolling(site: str, browser: Any) -> None:
    page = browser.new_page(viewport=PHONE)
    page.route("https://**", lambda route: route.abort())
    page.goto(f"{site}/tutorial/", wait_until="domcontentloaded")
    first, *_ = page.evaluate(WIDTHS)
    assert first[0].startswith("strategy")
    for path in ("tutorial", "serving", "experiments", "command-line", "economics", "results"):
        page.goto(f"{site}/{path}/", wait_until="domcontentloaded")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        if path == "tutorial":
            for header, width, seen in page.evaluate(WIDTHS):
                assert width <= seen, header
    page.close()
