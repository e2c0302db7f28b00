"""Records of a run: written and read by one definition, and refused by name if they do not fit it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.errors import ResultsError
from core.results.folder import RecordWriter, RunRecords, read_header, read_records
from core.results.header import RunHeader
from core.results.records import RECORD, Begin, Failure, Load, Measured, NarrowIntervals, Sample, Stop, TrialEnd
from tests.helpers.priced import UNITS
from tests.helpers.synthetic import Record, ended, lines_in, loads_of, records_of, run_of, sample_of, trial_of, typed

TRAFFIC = {"rate": 5.0, "requests": 20, "arrivals": {"gamma": 8.0}, "popularity": {"shares": {"m": 1.0}}}
GENERATOR = {"processor_s": 0.1, "seconds": 2.0, "sends": 20, "late_share": 0.0, "lag_p99_ms": 0.5}
HEADER = run_of(
    trial_of("a") | {"options": {"ttl": 2.0}, "loader_options": {"pack": True}, "model_mib": {"m": 40.0}},
    workload={"open": TRAFFIC}, cost=UNITS, limit={"memory_mib": 500.0}, batching={"max_batch_size": 32},
)  # fmt: skip
END = ended(
    "a", generator=GENERATOR, used=[{"model": "m", "loader": "mapped", "dtype": "float32", "nbytes": 40 << 20}],
    timeline={"at": [0.0, 1.0], "rss_mib": [400.0, 401.5]}, mean_rss=400.75,
    events=[{"at": 0.5, "model": "m", "event": "load", "reason": "request", "seconds": 0.1}],
)  # fmt: skip
FAILED = {"round": 0, "trial": "a", "model": "m", "text": 0, "first": False, "ms": 9.0, "status": 0, "error": "E."}


def test_each_kind_is_read_as_it_was_written(tmp_path: Path) -> None:
    header = typed(RunHeader, HEADER)
    measured: list[Measured] = [
        Begin(round=0, trial="a"),
        typed(Sample, sample_of("a", 10.0, at=0.5, lag_ms=0.1, top=[["P", 0.9], ["N", 0.1]])),
        typed(Sample, sample_of("a", 10.0, page_cache="cold", memory_mib={"pss": 400.0, "private": None})),
        typed(Sample, FAILED),
        typed(Load, loads_of("a", cold=(40.0, 0.09))[0]),
        typed(TrialEnd, END),
        Failure(round=1, trial="a", reason="R."),
        Stop(round=1, reason=NarrowIntervals(rounds=6, precision=0.05, relative_to="a", widths={"b": 0.04})),
        Stop(round=1, reason="It knows enough."),  # as older versions say it
    ]
    with RecordWriter(tmp_path) as records:
        for record in (header, *measured):
            records.append(record)
    assert read_records(tmp_path) == RunRecords(header, measured)
    assert lines_in(tmp_path)[0] == HEADER
    assert lines_in(tmp_path)[6] == END


def test_what_a_record_has_not_is_not_written(tmp_path: Path) -> None:
    with RecordWriter(tmp_path) as records:
        records.append(typed(Sample, FAILED))
    assert lines_in(tmp_path) == [{"kind": "sample", **FAILED}]


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        (sample_of("a", 1.0, colour="red"), "a record in another format: 'colour' of this sample record: extra inputs"),
        (sample_of("a", 1.0, text="1"), "a record in another format: 'text' of this sample record: input should be a"),
        (sample_of("a", 1.0, label=None), "this sample record: value error, an answered request must have 'cold'"),
        (ended("a", memory_mib={"idle_pss": "much"}), "'memory_mib.idle_pss' of this trial record: input should be a"),
        (ended("a", generator={"sends": 1}), "this trial record lacks 'generator.lag_p99_ms'."),
        (sample_of("b", 1.0), "is not a record of this run."),
        (run_of(trial_of("a")), "is not a record of this run."),
        ({"kind": "other"}, "is not a record of a run."),
    ],
)
def test_what_does_not_fit_is_named(record: Record, sentence: str) -> None:
    with pytest.raises(ResultsError) as caught:
        records_of([run_of(trial_of("a")), record])
    assert str(caught.value).startswith("samples.jsonl:2: ")
    assert sentence in str(caught.value)


@pytest.mark.parametrize(("changes", "schema"), [({"schema": 5}, "5"), ({"schema": 7, "colour": "red"}, "7")])
def test_another_version_is_refused_whatever_else_it_has(changes: dict[str, Any], schema: str) -> None:
    with pytest.raises(ResultsError, match=rf"samples.jsonl was written by another version \(schema {schema}\)\."):
        records_of([run_of(trial_of("a"), **changes)])


def test_every_kind_has_a_json_schema() -> None:
    schema = RECORD.json_schema()
    kinds = schema["discriminator"]["mapping"]
    assert set(kinds) == {"run", "machine", "begin", "sample", "load", "trial", "failure", "stop"}
    header = schema["$defs"][kinds["run"].rpartition("/")[2]]
    assert {"schema", "experiment", "models", "trials"} <= set(header["required"])


def test_the_header_is_read_without_the_other_records(tmp_path: Path) -> None:
    header = typed(RunHeader, HEADER)
    with RecordWriter(tmp_path) as records:
        records.append(header)
    path = tmp_path / "samples.jsonl"
    with path.open("a") as file:
        file.write('{"kind": "damaged"}\n')
    assert read_header(tmp_path) == header
    with pytest.raises(ResultsError, match=r"samples\.jsonl:2"):
        read_records(tmp_path)
    for text in ("", '{"kind": "begin", "round": 0, "trial": "a"}\n', '{"kind": "ru'):
        path.write_text(text)
        with pytest.raises(ResultsError, match=r"samples\.jsonl: the first line does not describe a run"):
            read_header(tmp_path)
    path.unlink()
    with pytest.raises(ResultsError, match="contains no run"):
        read_header(tmp_path)
