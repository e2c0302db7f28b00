"""Records of runs whose figures are known."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from core.advice.summary import summarise
from core.results.folder import RunRecords, parse_records
from core.results.recorded import Recorded
from core.results.summary import Summary
from core.stats.rounds import Run, arrange

Record = dict[str, Any]
"""A line of samples.jsonl, which a test may change before it is read."""
Latencies = Sequence[Sequence[float]]  # of each round, in milliseconds
Type = TypeVar("Type", bound=Recorded)


def records_of(records: Sequence[Record]) -> RunRecords:
    """These records, as they are read from the folder of a run."""
    lines = (json.dumps(record) + "\n" for record in records)
    return parse_records("".join(lines).encode(), Path("samples.jsonl"))


def arranged(records: Sequence[Record]) -> Run:
    return arrange(records_of(records))


def summarised(records: Sequence[Record]) -> Summary:
    return summarise(arranged(records))


def typed(kind: type[Type], record: Record) -> Type:
    """One record, as it is read."""
    return kind.model_validate_json(json.dumps(record))


def lines_in(folder: Path) -> list[Record]:
    """The records of a run in that folder."""
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()]


def run_of(*trials: Record, rounds: int = 2, **changes: Any) -> Record:
    return {
        "kind": "run", "schema": 6, "page_cache": "warm", "experiment": "e", "question": "Q?", "started": "now",
        "rounds": rounds, "models": {"m": {"reference": "embedded", "sha256": "0"}}, "trials": list(trials),
        "workload": None, "slo": None, "precision": None,
    } | changes  # fmt: skip


def trial_of(label: str, dtype: str = "float32") -> Record:
    return {
        "label": label, "strategy": label, "route": f"/predict-{label}", "options": {},
        "loader": "transformers", "loader_options": {}, "dtype": dtype, "weights_mib": 0.0,
    }  # fmt: skip


def sample_of(trial: str, ms: float, number: int = 0, **changes: Any) -> Record:
    return {
        "kind": "sample", "round": number, "trial": trial, "model": "m", "text": 0, "first": False, "ms": ms,
        "status": 200, "cold": False, "label": "POSITIVE", "score": 0.9, "timing": {"queue": 0.1, "inference": ms - 1},
    } | changes  # fmt: skip


def ended(trial: str, number: int = 0, pss: float | None = 500.0, **changes: Any) -> Record:
    memory = dict.fromkeys(("idle_pss", "idle_private", "idle_rss", "peak_rss", "start_peak_rss"), pss)
    return {
        "kind": "trial", "round": number, "trial": trial, "ready_s": 2.0, "first_answer_s": 3.0, "steady_s": 2.0,
        "processor_s": 0.2,
        "memory_mib": memory, "resident": ["m"], "loads": 1, "unloads": 0, "least_keep": None, "generator": None,
        "loads_lacking": None,
    } | changes  # fmt: skip


def run_with(latencies: Mapping[str, Latencies], **changes: Any) -> list[Record]:
    """A run whose trials answered so, in rounds of two seconds each."""
    records = [run_of(*map(trial_of, latencies), rounds=max(map(len, latencies.values())), **changes)]
    for number in range(records[0]["rounds"]):
        for label, rounds in latencies.items():
            if number < len(rounds):
                records += trial_with(label, rounds[number], number)
    return records


def trial_with(label: str, latencies: Sequence[float], number: int = 0, **changes: Any) -> list[Record]:
    """One trial in one round, from its beginning to its end; `changes` are of its last record."""
    place = {"round": number, "trial": label}
    first = sample_of(label, 99.0, number, first=True)
    samples = [first, *(sample_of(label, ms, number) for ms in latencies)]
    return [{"kind": "begin", **place}, *samples, ended(label, number, **changes)]


def loads_of(label: str, number: int = 0, **kinds: tuple[float, float]) -> list[Record]:
    """Three loads of each kind, `cold` and `warm`, of so many milliseconds and processor seconds each."""
    place = {"kind": "load", "round": number, "trial": label, "model": "m", "timing": {}}
    return [
        {**place, "page_cache": kind, "ms": ms, "processor_s": seconds}
        for kind, (ms, seconds) in kinds.items()
        for _ in range(3)
    ]
