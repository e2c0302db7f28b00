"""Running the rounds of an experiment on the machines of a Ray cluster, one round on a machine at a time.

Trials are compared within a round, so a round stays on one machine. Nothing else imports Ray.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import SettingsError
from ..names import IS_CHECKOUT, ROUND
from ..results.folder import SAMPLES, SERVER_LOG, RecordWriter, RunRecords, parse_records
from ..results.records import Begin, Failure, NarrowIntervals, Sample, Stop
from ..system.processes import start_bound
from .resume import EXPERIMENT, TEXTS
from .run import Progress
from .server import ROOT

if TYPE_CHECKING:
    from ray import ObjectRef

Files = dict[str, bytes]
"""Of a folder of results, by name."""


class Worker(NamedTuple):
    """A machine of the Ray cluster."""

    node_id: str
    name: str
    cores: float


class Finished(NamedTuple):
    """What a round has left."""

    files: Files
    """Its records after the header, and its servers' log."""
    failure: str | None
    """Why it could not be measured."""


def run_rounds(
    folder: Path,
    records: RecordWriter,
    progress: Progress,
    past: RunRecords,
    reason_to_stop: Callable[[int], NarrowIntervals | None],
    address: str,
) -> None:
    """Run each round that `past` lacks on a machine of the Ray cluster at `address`, and append its records.

    A round of which a trial is missing or failed is run again as a whole. `reason_to_stop` is as in `run_trials`.
    Raises SettingsError if there is no such cluster.
    """
    labels = [trial.label for trial in past.header.trials]
    done = {n for n in range(past.rounds_due) if past.finished_trials.issuperset((n, label) for label in labels)}
    due = [number for number in range(past.rounds_due) if number not in done]
    if not due:
        return
    with _connected(address) as cluster:
        for number, finished in cluster.run(_files_of(folder), due):
            _append(number, finished, folder, records, progress)
            done.add(number)
            # Later rounds that were measured count, too, so the run can only end with the latest.
            ends_here = past.stop is None and len(done) == max(done) + 1
            if ends_here and (reason := reason_to_stop(max(done))):
                records.append(Stop(round=max(done), reason=reason))
                return


def _append(number: int, finished: Finished, folder: Path, records: RecordWriter, progress: Progress) -> None:
    """Append the records of a round. Each trial that it did not finish has failed."""
    header = _files_of(folder)[SAMPLES]
    measured = parse_records(header + finished.files.get(SAMPLES, b""), folder / SAMPLES)
    for record in measured.measured:
        records.append(record)
    records.append_logs(finished.files.get(SERVER_LOG, b"").decode("utf-8", "replace"))
    failures = {record.trial: record.reason for record in measured.measured if isinstance(record, Failure)}
    for trial in measured.header.trials:
        requests = sum(isinstance(each, Sample) and each.trial == trial.label for each in measured.measured)
        progress.trial_started(number, trial.label)
        progress.requests_done(requests)
        failure = failures.get(trial.label)
        if failure is None and (number, trial.label) not in measured.finished_trials:
            failure = finished.failure or "the round ended early"
            records.append(Begin(round=number, trial=trial.label))
            records.append(Failure(round=number, trial=trial.label, reason=failure))
        progress.trial_ended(failure)


class _Cluster:
    """A connection to a Ray cluster."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray

    def machines(self) -> list[Worker]:
        """The machines that can compute. Raises SettingsError if there is none."""
        alive = [node for node in self._ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
        if not alive:
            raise SettingsError("--ray: the cluster has no machine with a core.")
        return [Worker(node["NodeID"], node["NodeManagerHostname"], node["Resources"]["CPU"]) for node in alive]

    def run(self, files: Files, due: Sequence[int]) -> Iterator[tuple[int, Finished]]:
        """The number and the result of each round, as it ends. A machine runs one round at a time."""
        from ray.exceptions import RayError

        free, left = self.machines(), list(due)
        running: dict[ObjectRef[Finished], tuple[int, Worker]] = {}
        try:
            while left or running:
                if not free and not running:  # the last machine was lost
                    free = self.machines()
                while left and free:
                    number, machine = left.pop(0), free.pop(0)
                    running[self._start(files, number, machine)] = number, machine
                [ended], _ = self._ray.wait(list(running), num_returns=1)
                number, machine = running.pop(ended)
                try:
                    finished = self._ray.get(ended)
                    free.append(machine)
                except RayError as error:
                    finished = Finished({}, f"{machine.name} was lost ({str(error).strip().splitlines()[0]})")
                yield number, finished
        finally:
            for reference in running:
                self._ray.cancel(reference, force=True)

    def _start(self, files: Files, number: int, machine: Worker) -> ObjectRef[Finished]:
        """Start a round, which has all cores of the machine."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        where = NodeAffinitySchedulingStrategy(node_id=machine.node_id, soft=False)
        options = {"num_cpus": machine.cores, "scheduling_strategy": where, "max_retries": 0}
        reference: ObjectRef[Finished] = self._ray.remote(**options)(measure).remote(files, number)
        return reference


def measure(files: Mapping[str, bytes], number: int) -> Finished:
    """Measure a round in a process of its own, whose memory is not Ray's."""
    with tempfile.TemporaryDirectory(prefix="residency-round-") as temporary:
        folder = Path(temporary)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        header = (folder / SAMPLES).stat().st_size
        command = [sys.executable, "-m", ROUND, str(folder), str(number)]
        process = start_bound(command, folder=ROOT if IS_CHECKOUT else None, output=subprocess.PIPE)
        said = process.communicate()[0].decode("utf-8", "replace").strip()
        failure = None if process.returncode == 0 else said.splitlines()[-1] if said else "it ended without a word"
        found = {SAMPLES: (folder / SAMPLES).read_bytes()[header:]}
        with suppress(FileNotFoundError):
            found[SERVER_LOG] = (folder / SERVER_LOG).read_bytes()
        return Finished(found, failure)


@contextmanager
def _connected(address: str) -> Iterator[_Cluster]:
    try:
        import ray
    except ImportError as error:
        raise SettingsError(
            "--ray needs Ray, which is not installed: pip install 'residency[cluster]', or in a checkout"
            " pip install -e '.[cluster]'."
        ) from error
    variables = {"PYTHONPATH": str(ROOT)} if IS_CHECKOUT else {}
    if "RESIDENCY_CACHE" in os.environ:
        variables["RESIDENCY_CACHE"] = os.environ["RESIDENCY_CACHE"]
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", runtime_env={"env_vars": variables})
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise SettingsError(f"--ray: no Ray cluster answers at '{address}' ({str(error).splitlines()[0]}).") from error
    try:
        yield _Cluster(ray)
    finally:
        ray.shutdown()


def _files_of(folder: Path) -> Files:
    """What a round needs of the run's folder: the experiment, its texts, and the header."""
    with (folder / SAMPLES).open("rb") as file:
        header = file.readline()
    texts = {TEXTS: (folder / TEXTS).read_bytes()} if (folder / TEXTS).exists() else {}
    return {EXPERIMENT: (folder / EXPERIMENT).read_bytes(), SAMPLES: header, **texts}
