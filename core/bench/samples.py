"""The samples of a trial on their way to the folder of results."""

from __future__ import annotations

from collections import Counter

from ..results.folder import RecordWriter
from ..results.records import Load, Sample
from .first_answers import FirstAnswers


class Samples:
    """Appends a trial's samples, and counts requests that failed."""

    def __init__(self, records: RecordWriter) -> None:
        self._records = records
        self.first = FirstAnswers(records.folder)
        self.requests = 0
        self.failed: Counter[str] = Counter()
        self.by_node: Counter[str] = Counter()

    def append(self, sample: Sample) -> None:
        """Append a sample."""
        self.requests += 1
        if sample.error is not None:
            self.failed[sample.error] += 1
        if sample.node is not None:
            self.by_node[sample.node] += sample.error is None
        self._records.append(sample)

    def append_load(self, load: Load) -> None:
        """Append the record of a single load, which does not count as a request."""
        self._records.append(load)

    def failures(self) -> str:
        """A phrase with the number of failed requests, and their most common error."""
        [(error, count)] = self.failed.most_common(1)
        which = "" if count == self.failed.total() else f", {count} of them"
        return f"{self.failed.total()} of {self.requests} requests failed{which}: {error.rstrip('.')}"
