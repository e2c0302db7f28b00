"""What a run keeps does not hang on what can be shown of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from wcwidth import wcswidth

from core.advice.summary import summarise
from core.report.card import card
from core.report.table import table
from core.results.folder import read_records
from core.stats.rounds import arrange
from tests.helpers.priced import costing
from tests.helpers.support import ROOT, SECONDS, checkpoint_in
from tests.runner.test_runner import experiment

WIDE = "速いモデル 🚀"
KEPT = {"summary.json", "table.md", "report.html"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a finished run with a label that is wide, and in no old encoding."""
    records = costing({WIDE: [(100.0, 0.01)] * 5, "kept": [(200.0, 0.001)] * 5})
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    (tmp_path / "samples.jsonl").write_text("".join(lines), encoding="utf-8")
    return tmp_path


def in_bash(
    command: str, *arguments: object, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """`command` with the runner as $R and the arguments as $1, …"""
    environment = os.environ | {"R": f"{sys.executable} {ROOT / 'runner.py'}"} | dict(variables or {})
    line = ["bash", "-o", "pipefail", "-c", command, "bash", *map(str, arguments)]
    return subprocess.run(line, env=environment, capture_output=True, timeout=SECONDS, check=False)


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "ascii"},
        pytest.param({"PYTHONIOENCODING": "latin-1"}, marks=pytest.mark.slow),
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_a_terminal_loses_the_characters_that_it_does_not_have(folder: Path, variables: dict[str, str]) -> None:
    done = in_bash("$R report $1", folder, variables=variables)
    assert done.returncode == 0, done.stderr
    assert b"????? ?" in done.stdout
    assert b"What to use" in done.stdout
    assert WIDE in (folder / "table.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "command",
    [pytest.param("$R report $1 | head -1", marks=pytest.mark.slow), "$R report $1 | true", "$R report $1 >&- 2>&-"],
)
def test_a_reader_who_has_left_costs_nothing(folder: Path, command: str) -> None:
    done = in_bash(command, folder)
    assert (done.returncode, done.stderr) == (0, b"")
    assert {path.name for path in folder.iterdir()} >= KEPT


def test_a_disk_that_is_full_for_the_output_is_told_when_all_is_kept(folder: Path) -> None:
    done = in_bash("$R report $1 > /dev/full", folder)
    assert (done.returncode, done.stderr) == (1, b"error: standard output: No space left on device.\n")
    assert {path.name for path in folder.iterdir()} >= KEPT


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("$R $1 --dry-run | true", 0),
        ("$R --plugins >&-", 0),
        pytest.param("$R --help | true", 0, marks=pytest.mark.slow),
        ("$R /no/such/→ 2>/dev/full", 2),
        ("$R --wrong 2>&-", 2),
    ],
)
def test_neither_do_other_commands_stumble(tmp_path: Path, command: str, status: int) -> None:
    checkpoint_in(tmp_path / "a")
    done = in_bash(command, experiment(tmp_path), variables={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, b"Traceback" in done.stderr) == (status, False), done.stderr


def test_a_run_whose_streams_are_gone_keeps_everything(tmp_path: Path) -> None:
    """Progress, warnings and the report have nowhere to go."""
    checkpoint_in(tmp_path / "a")
    strategies = [{"strategy": "on-demand", "loader": "fake", "label": WIDE}]
    path = experiment(tmp_path, strategies=strategies)
    done = in_bash("($R $1 --output $2 2>&1 || echo $? > $2/status) | true", path, tmp_path)
    assert done.returncode == 0, done.stderr
    [folder] = tmp_path.glob("quick/2*")
    assert {path.name for path in folder.iterdir()} >= KEPT
    assert not (tmp_path / "status").exists()


def test_wide_characters_align(folder: Path) -> None:
    summary = summarise(arrange(read_records(folder)))
    for text in (table(summary, "simple"), table(summary, "pipe"), card(summary, "simple").partition("\n\n")[2]):
        rows = [
            line for line in text.splitlines() if line.startswith((WIDE, "kept", f"| {WIDE}", "| kept", "|:", "---"))
        ]
        assert len(rows) >= 3
        assert len({wcswidth(row) for row in rows}) == 1, text
