"""A run's answer in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..report.format import milliseconds
from .verdicts import (
    compared,
    ending,
    targets,
)

Trial = Mapping[str, Any]
KEPT, LOADED = 0.0, 1.0  # shares of cold requests: none waited for a load, or each did


def answer_in_words(summary: Mapping[str, Any]) -> list[str]:
    """Sentences: what failed, which the table does not show, then the answer, then other doubts."""
    trials = [trial for trial in summary["trials"] if trial["latency_ms"]["p50"] is not None]
    sentences = [*_failures(summary), *_loaders(trials), *compared(summary), *targets(summary)]
    sentences += _where_it_goes(trials)
    for trial in trials:
        sentences += _partly_cold(trial)
    for trial in summary["trials"]:
        sentences += _memory_return(trial)
    sentences += _page_cache(summary)
    sentences += ending(summary)
    return sentences + [f"Warning: {warning['sentence']}" for warning in summary["warnings"]]


def _page_cache(summary: Mapping[str, Any]) -> Iterator[str]:
    if summary["page_cache"] == "cold" and any(trial["cold"]["share"] for trial in summary["trials"]):
        yield "Whenever a request waited for a load, the checkpoint came from disk, not from the page cache."


def _loaders(trials: list[Trial]) -> Iterator[str]:
    """What loading adds under each loader that was measured with and without it, if there are several."""
    by_loader: dict[str, dict[float, Trial]] = {}
    for trial in trials:
        share = trial["cold"]["share"]
        by_loader.setdefault(f"{trial['loader']} {trial['loader_options']}", {}).setdefault(share, trial)
    pairs = [(found[KEPT], found[LOADED]) for found in by_loader.values() if {KEPT, LOADED} <= set(found)]
    for pair in pairs if len(pairs) > 1 else []:
        loader = f"{pair[0]['loader']} ({pair[0]['dtype']})"
        kept, loaded = (float(trial["latency_ms"]["p50"]) for trial in pair)
        adds = milliseconds(max(0.0, loaded - kept))
        yield (
            f"{loader}: p50 is {milliseconds(kept)} with the model kept in memory and {milliseconds(loaded)} if it is"
            f" loaded for every request ({adds} more).{_private(pair)}"
        )


def _private(pair: tuple[Trial, Trial]) -> str:
    kept, loaded = (trial["memory_mib"]["idle_private"] for trial in pair)
    weights = pair[0]["weights_mib"]
    if kept is None or loaded is None or not weights:
        return ""
    more = max(0.0, kept - loaded)
    return f" Keeping the model takes {more:.0f} MiB of private memory, {more / weights:.0%} of the weights."


def _where_it_goes(trials: list[Trial]) -> Iterator[str]:
    found = [trial for trial in trials if trial["cold"]["share"] == LOADED]
    phases = dict(found[0]["cold"]["phases_ms"]) if found else {}
    if not phases.get("load"):
        return
    whose = f" ({_name(found[0])})" if len(found) > 1 else ""
    parts = {name.removeprefix("load-"): ms for name, ms in phases.items() if name.startswith("load-")}
    split = ", ".join(f"{name} {milliseconds(ms)}" for name, ms in parts.items())
    yield (
        f"Of the median {milliseconds(phases['answer'])} of a request with a load{whose}, the load takes"
        f" {milliseconds(phases['load'])}{f' ({split})' if split else ''} and the forward pass"
        f" {milliseconds(phases['inference'])}."
    )


def _partly_cold(trial: Trial) -> Iterator[str]:
    share = trial["cold"]["share"]
    if share and 0 < share < 1:
        medians = (trial[part]["latency_ms"]["p50"] for part in ("cold", "warm"))
        slow, quick = ("n/a" if value is None else milliseconds(value) for value in medians)
        yield (
            f"Under {_name(trial)}, {share:.0%} of the requests waited for a load: p50 is {slow} for these and {quick}"
            " for the others."
        )


def _memory_return(trial: Trial) -> Iterator[str]:
    """How much memory came back over many loads, if that was measured."""
    measured = trial["memory_return"]
    if measured is None:
        return
    slope, interval = measured["slope_mib_per_cycle"], measured["slope_ci95"]
    within = f" (95 % interval {interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
    yield (
        f"After {measured['cycles']} loads, {_name(trial)} has returned {measured['returned_share']:.1%} of the"
        f" {measured['weights_mib']:.0f} MiB of weights; its memory grows by {slope:.3f} MiB with each load{within}."
    )
    if measured["leaks"]:
        yield f"Warning: {_name(trial)} does not give its memory back; find out what keeps it."


def _failures(summary: Mapping[str, Any]) -> Iterator[str]:
    for sentence in summary["disagreements"]:
        yield f"Warning: the answers differ: {sentence}"
    for failure in summary["failures"]:
        yield f"Warning: {failure['trial']} failed in round {failure['round'] + 1}: {failure['reason']}"
    for trial in summary["trials"]:
        if trial["errors"]:
            why = f": {trial['error'].rstrip('.')}" if trial["error"] else ""
            log = f" The server's log says: {trial['log'].rstrip('.')}." if trial["log"] else ""
            answered = f"{_name(trial)} answered {trial['errors']} requests with an error"
            yield f"Warning: {answered}{why}.{log} See server.log."
        missing = summary["rounds_due"] - trial["rounds"]
        failed = sum(failure["trial"] == trial["label"] for failure in summary["failures"])
        if missing > failed:
            unfinished = f"{missing - failed} of {summary['rounds_due']} rounds of {_name(trial)}"
            yield f"Warning: {unfinished} did not run to the end."


def _name(trial: Trial) -> str:
    return str(trial["label"])
