from __future__ import annotations

import json
import mmap
import os
import shutil
from collections.abc import Collection
from pathlib import Path
from threading import Event
from threading import enumerate as enumerate_threads

import pytest
import torch
from safetensors.torch import save_file

from core.checkpoints.cache import write_once
from core.checkpoints.header import read_header
from core.checkpoints.read_ahead import read_ahead
from core.errors import TrialFailed
from core.system import page_cache
from core.system.page_cache import cached_share, drop_files
from tests.helpers.support import FAKES, ROOT, read_json, run_python, wait_for

NBYTES = 64 * mmap.PAGESIZE


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file on a disk, in the page cache."""
    file = tmp_path / "weights"
    file.write_bytes(b"x" * NBYTES)
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if cached_share(file) > 0:
        pytest.skip(f"{tmp_path} lies in memory; name a folder on a disk with --basetemp")
    file.read_bytes()
    return file


def test_what_is_evicted_is_gone(file: Path, tmp_path: Path) -> None:
    assert cached_share(file) == 1
    drop_files([file])
    assert cached_share(file) == 0
    (tmp_path / "empty").touch()
    drop_files([tmp_path / "empty"])


def test_what_the_cache_has_written_was_read_anew(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it lies in the page cache in the large pages of what is read in a row."""
    monkeypatch.setenv("RESIDENCY_CACHE", str(tmp_path / "cache"))

    def write(folder: Path) -> None:
        shutil.copyfile(file, folder / "weights")
        drop_files([folder / "weights"])

    assert cached_share(write_once("some", NBYTES, write) / "weights") == 1


def test_a_process_that_maps_the_file_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_cache, "PATIENCE", 0.05)
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ) as mapping:
        assert mapping[0 :: mmap.PAGESIZE]
        with pytest.raises(TrialFailed, match=rf"100% of {file} stayed in the page cache: .*\(pid {os.getpid()}\)"):
            drop_files([file])
    drop_files([file])


def nobody_reads() -> bool:
    return all(thread.name != "read-ahead" for thread in enumerate_threads())


def fetched(weights: Path, names: Collection[str], share: float) -> None:
    """Evict the file, read these tensors ahead, and find more than the share of it in the page cache; again where the
    disk has answered at once, which is taken for the page cache.
    """

    def is_read() -> bool:
        drop_files([weights])
        read_ahead({weights: read_header(weights)}, names, Event())
        wait_for(nobody_reads)
        return cached_share(weights) > share

    wait_for(is_read)


def test_reads_from_the_disk_without_being_asked(file: Path, embedded_directory: Path) -> None:
    weights = file.with_name("model.safetensors")
    shutil.copyfile(embedded_directory / "model.safetensors", weights)
    header = read_header(weights)
    fetched(weights, set(header), 0.99)
    words = "bert.embeddings.word_embeddings.weight"
    without = 1 - header[words].nbytes / weights.stat().st_size
    fetched(weights, set(header) - {words}, 0.98 * without)
    # The kernel reads a little ahead by itself.
    assert cached_share(weights) < without + 0.5 * (1 - without)
    drop_files([weights])
    over = Event()
    over.set()
    read_ahead({weights: header}, set(header), over)
    wait_for(nobody_reads)
    assert cached_share(weights) < 0.1


def test_a_single_large_tensor_is_read_although_its_header_was(file: Path) -> None:
    weights = file.with_name("model.safetensors")
    save_file({"weight": torch.zeros(16 << 20)}, weights)
    fetched(weights, {"weight"}, 0.99)


SPY = """
import pluggy
from core.system.page_cache import cached_share
from core.loaders.mapped.loader import MappedLoader

class Spy(MappedLoader):
    "Writes down how much of a checkpoint each load finds in the page cache."
    name = "spy"
    def load(self, directory):
        with open(directory.parent / "found", "a") as file:
            print(cached_share(directory / "model.safetensors"), file=file)
        return super().load(directory)

@pluggy.HookimplMarker("residency")
def register_loaders():
    return [Spy]
"""


@pytest.mark.slow
def test_loads_find_nothing_of_their_checkpoint_in_the_page_cache(file: Path, embedded_directory: Path) -> None:
    folder = file.parent
    shutil.copytree(embedded_directory, folder / "checkpoint")
    (folder / "spy.py").write_text(SPY)
    (folder / "cold.yaml").write_text(
        """# What does a load from the disk cost?
name: cold
models: {embedded: ./checkpoint}
plugins: [spy.py]
strategies:
  - {strategy: on-demand, loader: spy, label: mapped}
  - {strategy: on-demand, loader: subprocess, label: subprocess}
  - {strategy: lru-cached, label: kept}
page_cache: cold
texts: [I love it.]
repetitions: 1
repeats: 1
"""
    )
    # A cache of its own: what another test's server maps of the embedded model's files stays in memory.
    own = {"RESIDENCY_CACHE": str(folder / "cache")}
    command = (str(ROOT / "runner.py"), str(folder / "cold.yaml"), "--output", str(folder / "out"))
    done = run_python(*command, variables=own)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the checkpoint came from disk" in done.stdout
    found = [float(line) for line in (folder / "found").read_text().splitlines()]
    start, probe, *requests = found
    assert start < 0.01
    assert probe <= 1.0  # what the start has read is there, which the first request must not find
    assert max(requests[:5]) < 0.01  # two requests, and three of the loads that are measured by themselves
    assert len(requests) == 8
    assert min(requests[5:]) > 0.99  # the kernel may take back a page at any time
    [run] = (folder / "out" / "cold").glob("2*")
    records = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    labels = [(s["trial"], s["cold"], s["page_cache"]) for s in records if s["kind"] == "sample"]
    loads = [(s["trial"], s["page_cache"]) for s in records if s["kind"] == "load"]
    assert sorted(loads) == sorted(
        (t, kind) for t in ("mapped", "subprocess") for kind in ("cold", "warm") for _ in "123"
    )
    assert all(record["ms"] > 0 and record["processor_s"] > 0 for record in records if record["kind"] == "load")
    assert all(record["loads_lacking"] is None for record in records if record["kind"] == "trial")
    for label in ("mapped", "subprocess"):
        assert [s for s in labels if s[0] == label] == [(label, True, "cold")] * 2
    assert [s for s in labels if s[0] == "kept"] == [("kept", True, "cold"), ("kept", False, "warm")]
    assert read_json(run / "summary.json")["page_cache"] == "cold"


@pytest.mark.slow
def test_loads_that_cannot_come_from_the_disk_say_why_and_fail_no_trial(file: Path, embedded_directory: Path) -> None:
    """A neighbour maps the checkpoint, which keeps it in the page cache."""
    folder = file.parent
    shutil.copytree(embedded_directory, folder / "checkpoint")
    (folder / "warm.yaml").write_text(
        f"""# What does a load cost?
name: warm
models: {{embedded: ./checkpoint}}
plugins: [{FAKES}]
strategies: [{{strategy: on-demand, loader: fake}}, {{strategy: persistent, loader: fake}}]
texts: [I love it.]
repetitions: 2
repeats: 1
"""
    )
    weights = folder / "checkpoint" / "model.safetensors"
    with weights.open("rb") as stream, mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ) as mapping:
        assert mapping[0 :: mmap.PAGESIZE]
        done = run_python(str(ROOT / "runner.py"), str(folder / "warm.yaml"), "--output", str(folder / "out"))
    assert done.returncode == 0, done.stdout + done.stderr
    records = [json.loads(line) for line in (folder / "out/warm/latest/samples.jsonl").read_text().splitlines()]
    reasons = {record["trial"]: record["loads_lacking"] for record in records if record["kind"] == "trial"}
    assert reasons["persistent, fake"] is None  # it has no load to price
    assert f"(pid {os.getpid()}) maps it" in reasons["on-demand, fake"]
    assert not [record for record in records if record["kind"] == "load"]
    assert cached_share(weights) == 1  # as it was before
    assert "The cost of a load from disk is unknown for on-demand, fake (" in done.stdout
