"""What is said below the table of a run: how its figures were made, and why some are missing."""

from __future__ import annotations

from collections.abc import Iterator

from ...results.figures import TooFew
from ...results.summary import Summary
from .economics import floor_in_words
from .sentences import say

SHOWN = {"p50": "p50", "p99": "p99"}  # of a latency, by its key: in the table of the card
SHOWN_WIDE = {"mean_ci95": "interval", "p50": "p50", "p95": "p95", "p99": "p99"}


def footnotes(summary: Summary, *, wide: bool = False) -> list[str]:
    """Those of the table with six columns, or of the one with all."""
    floor = [floor_in_words(summary.floor)] if summary.limit or summary.floor else []
    return [_how(summary, wide=wide), *floor, *_generator(summary), *_missing(summary, wide=wide)]


def _how(summary: Summary, *, wide: bool) -> str:
    cold = "A request that waited for a load is cold; the other ones are warm."
    pss = "PSS includes mapped weights; a page that n processes map counts 1/n."
    process = "Each round is a server process of its own; loads are those of all rounds."
    steady = "Latencies are of the steady state, after the first request."
    money = "A million requests are in the currency of the prices; the card says what they include."
    said = [steady, cold, pss, process, *([money] if summary.economics else [])]
    if wide:
        share = "'cold' is the share of the cold ones."
        private = "Private memory is what the server alone has written."
        mean = "The mean is given with its 95 % interval over rounds."
        return " ".join((*said, share, private, mean))
    return " ".join((*said, "--wide shows the other columns."))


def _generator(summary: Summary) -> Iterator[str]:
    """The load generator's worst figures over all trials; summary.json has those of each trial."""
    known = [trial.generator for trial in summary.trials if trial.generator]
    if known:
        cores, lag, late = (
            max(each.cores for each in known),
            max(each.lag_p99_ms for each in known),
            max(each.late_share for each in known),
        )
        yield (
            f"The load generator took up to {cores:.2f} cores; the p99 of its lag was {lag:.2g} ms, and {late:.2%} of"
            " the sends were late."
        )


def _missing(summary: Summary, *, wide: bool) -> Iterator[str]:
    """Trials that lack a figure for the same reason share a sentence."""
    whose: dict[tuple[str, TooFew], list[str]] = {}
    for trial in summary.trials:
        why = {SHOWN_WIDE.get(key, ""): reason for key, reason in trial.latency_ms.null_because.items()}
        for kind, part in (("warm", trial.warm), ("cold", trial.cold)):
            if part.count and "p50" in part.latency_ms.null_because:  # else there is nothing that it needs more of
                why[f"{kind} p50"] = part.latency_ms.null_because["p50"]
        for what in (*(SHOWN_WIDE if wide else SHOWN).values(), "warm p50", "cold p50"):
            if what in why:
                whose.setdefault((what, why[what]), []).append(trial.label)
    for (what, reason), labels in whose.items():
        yield f"No {what} for {'; '.join(labels)}: it {say(reason)}."
