"""What cards for one rate and for all rates share: the evidence, and the findings that both have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ..costs.economics import Costs, TrialCost
from ..costs.prices import HOUR
from ..results.answers import FastestOfSame, MeanLatency, RoundsLacking, Settles, TargetMet, TargetNotSettled
from ..results.comparisons import StatisticName, Verdict
from ..results.economics import BreakEven
from ..results.figures import Latency, TrialFigures
from ..results.flips import RATE_FLIPS, Capacity, LatencyFlip, Longer, RateFlip, Rates
from ..results.header import clients_of
from ..results.notes import BackToBackProcessor, BackToBackWaiting, Finding, NotCompared, NotPriced, ValidGaps
from ..results.summary import Measurements
from ..stats.intervals import VERDICT_ROUNDS
from .choice import left_out

PERCENTILES: tuple[StatisticName, ...] = ("p99", "p50")  # of which the rounds give verdicts


@dataclass
class Advice:
    """What a card recommends; `recommended` and `runner_up` are labels, and `settles` says what would decide what the
    rounds leave open.
    """

    recommended: str | None = None
    """The trial for the highest rates, if `sides` has several."""
    runner_up: str | None = None
    answer: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)
    settles: Settles | None = None
    sides: list[tuple[str, Rates | None]] = field(default_factory=list)
    """Labels, and the rates for which each is recommended; None: those of the run."""
    order: tuple[str, ...] = ()
    """Labels that distinguish this answer from another one."""

    @property
    def rate_flips(self) -> list[RateFlip]:
        """The rates at which the answer changes."""
        return [each for each in (*self.answer, *self.notes) if isinstance(each, RATE_FLIPS)]


@dataclass(frozen=True)
class Evidence:
    """What advice is derived from."""

    measured: Measurements
    costs: Costs
    pairs: Sequence[BreakEven]

    def trial(self, label: str) -> TrialFigures:
        """The trial of that label in the summary."""
        return next(trial for trial in self.measured.trials if trial.label == label)

    def mean(self, label: str) -> float:
        """The mean latency of a priced trial, in milliseconds."""
        mean = self.trial(label).latency_ms.mean
        assert mean is not None, "a trial without an answer has no price"
        return mean

    def cost(self, label: str) -> TrialCost:
        return next(trial for trial in self.costs.trials if trial.label == label)

    def pair(self, one: str, other: str) -> BreakEven:
        return next(pair for pair in self.pairs if {pair.trial, pair.against} == {one, other})

    @property
    def rate(self) -> float | None:
        """The rate, in requests an hour, for which to advise, of a run whose traffic has no rate of its own."""
        return None if self.measured.rate is None else self.measured.rate * HOUR

    @property
    def trifle(self) -> float:
        """Money a month; a smaller saving decides nothing."""
        assert self.measured.cost is not None, "costs have prices"
        return self.measured.cost.trifle

    def is_quicker(self, one: str, other: str, names: Sequence[StatisticName] = ("p50", "mean")) -> bool:
        """Whether the rounds show that `one` has the lower latency, by the first of these statistics with a verdict."""
        wanted: dict[tuple[str, str], Verdict] = {(one, other): "lower", (other, one): "higher"}
        for pair in self.measured.comparisons:
            if verdict := wanted.get((pair.trial, pair.against)):
                verdicts = [pair.statistics[name].verdict for name in names]
                return next((each for each in verdicts if each is not None), None) == verdict
        return False

    @property
    def eligible(self) -> list[TrialCost]:
        """The trials that are priced, without errors, and not known to miss a target."""
        return [trial for trial in self.costs.trials if not left_out(self.trial(trial.label))]

    @property
    def excluded(self) -> list[Finding]:
        """Why each of the others is left out."""
        reasons = [found for trial in self.measured.trials if (found := left_out(trial))]
        return [*reasons, *(NotPriced(label=label, reason=why) for label, why in self.costs.unpriced.items())]

    @property
    def clients(self) -> int:
        """Clients of a closed loop; 0 under a workload that has a rate of its own."""
        return clients_of(self.measured.workload)

    def capacity(self, trial: TrialCost) -> Capacity:
        """The most requests that a trial can answer, as far as that is known, and why."""
        is_size = trial.size is not None and trial.is_limited_by_size
        cores = trial.size.cpu if trial.size is not None and is_size else None
        return Capacity(per_hour=trial.capacity or 0.0, cores=cores, clients=self.clients)


def rounds_lacking(rounds: int, due: int) -> RoundsLacking | None:
    """What would decide it if fewer than 5 of the `due` rounds were finished; None if there are enough."""
    if rounds >= VERDICT_ROUNDS:
        return None
    lacking = VERDICT_ROUNDS - rounds
    return RoundsLacking(lacking=lacking, repeats=VERDICT_ROUNDS if due < VERDICT_ROUNDS else due + lacking)


def latency_flip(evidence: Evidence, label: str, ranked: Sequence[str]) -> list[LatencyFlip]:
    """The latency target from which on `label` is too slow, if another one is faster; `ranked` are the labels, the
    cheapest first.
    """
    for q in PERCENTILES:
        ours = _percentile(evidence.trial(label).latency_ms, q)
        quicker = next((name for name in ranked if name != label and evidence.is_quicker(name, label, (q,))), None)
        theirs = _percentile(evidence.trial(quicker).latency_ms, q) if quicker else None
        if ours is None or quicker is None or theirs is None:
            continue
        return [LatencyFlip(at=ours, percentile=q, to=quicker, to_ms=theirs, instead=label, clients=evidence.clients)]
    return []


def _percentile(latency: Latency, name: str) -> float | None:
    return {"p50": latency.p50, "p99": latency.p99}[name]


def longer(evidence: Evidence, slow: str, quick: str) -> Longer | None:
    """How much longer a request takes under `slow`, if the rounds show that it is slower."""
    more = evidence.mean(slow) - evidence.mean(quick)
    return Longer(ms=more, clients=evidence.clients) if more > 0 and evidence.is_quicker(quick, slow) else None


def fastest(evidence: Evidence, labels: Sequence[str], preferred: str | None = None) -> str:
    """The trial with the lowest mean latency; of those that the rounds do not show to be slower, the `preferred` one,
    or else the one with the fewest options, and of these the first of the file.
    """
    least = min(labels, key=evidence.mean)
    alike = [trial.label for trial in evidence.measured.trials if trial.label in labels]
    alike = [label for label in alike if not evidence.is_quicker(least, label)]
    if preferred in alike:
        return str(preferred)
    return min(alike, key=lambda label: len(evidence.trial(label).options))


def why_the_fastest(
    evidence: Evidence, label: str, others: Sequence[str], rates: Rates | None, most: float | None
) -> FastestOfSame:
    """Why `label` is recommended at these rates (None: at all) of those that cost the same: the others save at most
    `most` a month; None if they cost the same in proportion.
    """
    slower = [each for each in others if evidence.is_quicker(label, each)]
    alike = [each for each in others if each not in slower]
    options = {each: len(evidence.trial(each).options) for each in (label, *alike)}
    return FastestOfSame(
        rates=rates,
        label=label,
        mean_ms=evidence.mean(label),
        slower=[MeanLatency(label=each, ms=evidence.mean(each)) for each in slower],
        alike=[MeanLatency(label=each, ms=evidence.mean(each)) for each in alike],
        has_fewest_options=bool(alike) and options[label] < min(options[each] for each in alike),
        saves=most,
        trifle=evidence.trifle,
    )


def simplest(evidence: Evidence, label: str) -> str | None:
    """The trial that keeps its models: under it no request waited for a load, and none expires. It has the loader of
    `label` if there is such a one; None if `label` keeps its models itself, or no trial does.
    """
    kept = [
        trial.label
        for trial in evidence.eligible
        if trial.least_keep is None and evidence.trial(trial.label).cold.share == 0
    ]
    if label in kept:
        return None
    found = {each: evidence.trial(each) for each in {label, *kept}}
    loaders = {each: (trial.loader, trial.loader_options) for each, trial in found.items()}
    return min(kept, key=lambda each: loaders[each] != loaders[label], default=None)


def doubts(evidence: Evidence, labels: Iterable[str]) -> Iterator[Finding]:
    """For each target, how far it is known that these meet it."""
    for label in dict.fromkeys(labels):
        for target in evidence.trial(label).slo:
            name, ms = target.percentile, target.target_ms
            if target.processes_least is not None:
                least = target.processes_least
                yield TargetMet(label=label, percentile=name, target_ms=ms, rounds=target.rounds, least=least)
            else:
                yield TargetNotSettled(label=label, percentile=name, target_ms=ms)


def back_to_back(evidence: Evidence) -> Iterator[Finding]:
    """Whose CPU time and waiting the costs of a closed loop are, if these have a price."""
    prices = evidence.costs.prices
    if prices.cpu_hour:
        yield BackToBackProcessor()
    if prices.latency_hour and evidence.clients > 1:
        yield BackToBackWaiting(clients=evidence.clients)


def gaps(evidence: Evidence) -> Iterator[Finding]:
    """On which gaps the cost of trials depends whose models expire."""
    for trial in evidence.eligible:
        if not trial.is_line:
            yield NotCompared(label=trial.label)
        elif trial.least_keep is not None:
            yield ValidGaps(label=trial.label, shorter_than_s=trial.least_keep)
