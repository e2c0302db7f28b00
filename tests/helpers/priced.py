"""Records of runs whose costs are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.report.prose.card import CardText, SettingsText, card_in_words
from core.report.prose.sentences import say
from core.results.card import Card
from core.results.economics import Economics
from core.results.flips import Flip
from tests.helpers.synthetic import Record, loads_of, run_of, summarised, trial_of, trial_with

# One a MiB-hour, one a core second, and nothing for waiting: a is a number of MiB, b one of core seconds.
UNITS = {"memory_gib_hour": 1024.0, "cpu_hour": 3600.0, "latency_hour": 0.0, "charge": "pss", "billing": "average"}
REQUESTS = 20  # in each round, of two seconds, which is ten a second
MIB, SECONDS = 0, 1


@dataclass(frozen=True)
class ToldCard:
    """The card of a run, as facts and in words."""

    facts: Card
    text: CardText

    @property
    def recommended(self) -> str | None:
        return self.facts.recommended

    @property
    def runner_up(self) -> str | None:
        return self.facts.runner_up

    @property
    def flips(self) -> list[Flip]:
        return self.facts.flips

    @property
    def sentences(self) -> list[str]:
        return self.text.sentences

    @property
    def settings(self) -> list[SettingsText]:
        return self.text.settings

    @property
    def settles(self) -> str | None:
        """What would settle it, whether or not a sentence says it, too."""
        return None if self.facts.settles is None else say(self.facts.settles)


def card_of(records: Sequence[Record]) -> ToldCard:
    summary = summarised(records)
    return ToldCard(summary.card, card_in_words(summary))


def economics_of(records: Sequence[Record]) -> Economics:
    """The costs of a run that has some."""
    found = summarised(records).economics
    assert found is not None
    return found


def costing(
    trials: Mapping[str, Sequence[tuple[float, float]]],
    ms: Mapping[str, float] | None = None,
    specs: Mapping[str, Record] | None = None,
    cost: Mapping[str, Any] | None = None,
    **changes: Any,
) -> list[Record]:
    """A run whose trials, in each round, held so many MiB and took so many core seconds for each request.

    Their latency is `ms` (10 without), `specs` change their descriptions, `cost` the prices, `changes` the run.
    """
    described = [trial_of(label) | (specs or {}).get(label, {}) for label in trials]
    rounds = max(map(len, trials.values()))
    records = [run_of(*described, rounds=rounds, cost=UNITS | dict(cost or {}), **changes)]
    for number in range(rounds):
        for label, costs in trials.items():
            mib, seconds = costs[number]
            memory = dict.fromkeys(("idle_pss", "idle_private", "idle_rss", "peak_rss", "start_peak_rss"), mib)
            latencies = [(ms or {}).get(label, 10.0)] * REQUESTS
            ended = {"memory_mib": memory, "processor_s": seconds * REQUESTS}
            records += trial_with(label, latencies, number, **ended)
    return records


def ended_with(records: Sequence[Record], label: str, **changes: Any) -> list[Record]:
    """The records, with fields of a trial's last record changed; `memory_mib` is added to."""
    result = []
    for record in records:
        if record["kind"] == "trial" and record["trial"] == label:
            memory = record["memory_mib"] | changes.get("memory_mib", {})
            result.append(record | changes | {"memory_mib": memory})
        else:
            result.append(record)
    return result


def loading(
    records: Sequence[Record], label: str, rounds: Sequence[Mapping[str, tuple[float, float]]] = ({},), **changes: Any
) -> list[Record]:
    """The records, with each request of a trial waiting for a load; of each kind of loads that were measured by
    themselves the milliseconds and core seconds, for each of the `rounds`. `changes` are of its last record.
    """
    result: list[Record] = []
    for record in ended_with(records, label, loads=REQUESTS, **changes):
        if record.get("trial") == label:
            if record["kind"] == "sample":
                record = record | {"cold": True}
            elif record["kind"] == "trial":
                result += loads_of(label, record["round"], **rounds[record["round"] % len(rounds)])
        result.append(record)
    return result
