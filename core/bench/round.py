"""One round of a run in a process of its own, on whichever machine: `python -m core.bench.round FOLDER NUMBER`.

The folder has the header of the run and its experiment. The records of the round are appended to it.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path

from ..errors import ResidencyError, ResultsError
from ..results.folder import RecordWriter, read_header
from .environment import describe_machine
from .resume import differing_model, read_experiment
from .run import prepare, run_round


class NoProgress:
    """Callbacks that do nothing."""

    def trial_started(self, number: int, label: str) -> None:
        """Does nothing."""

    def requests_done(self, count: int) -> None:
        """Does nothing."""

    def trial_ended(self, failure: str | None) -> None:
        """Does nothing."""


def measure_round(folder: Path, number: int) -> None:
    """Run every trial once, and append the records, after one that describes this machine. Raises ResidencyError."""
    header = read_header(folder)
    resolved = read_experiment(folder, header)
    checkpoints, digests = prepare(resolved)
    if model_id := differing_model(header, digests):
        raise ResultsError(
            f"The checkpoint of model '{model_id}' ({header.models[model_id].reference}) on {platform.node()} is not"
            " that of the run; copy it to this machine."
        )
    with RecordWriter(folder) as records:
        records.append(describe_machine(number))
        run_round(resolved, number, checkpoints, records, NoProgress())


def main() -> None:
    """Measure a round. An error ends the process with a sentence."""
    try:
        measure_round(Path(sys.argv[1]), int(sys.argv[2]))
    except ResidencyError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
