"""A run's answer in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Trial = Mapping[str, Any]


def answer_in_words(summary: Mapping[str, Any]) -> list[str]:
    """Sentences, the answer first, then what casts doubt on it."""
    trials = [trial for trial in summary["trials"] if trial["latency_ms"]["p50"] is not None]
    sentences = list(_comparison(trials))
    sentences += _loaders(trials)
    for trial in trials:
        sentences += _partly_cold(trial)
    for trial in summary["trials"]:
        sentences += _memory_return(trial)
    sentences += _page_cache(summary)
    sentences += _doubts(summary)
    return sentences


def _page_cache(summary: Mapping[str, Any]) -> Iterator[str]:
    if summary["page_cache"] == "cold" and any(trial["cold"]["share"] for trial in summary["trials"]):
        yield "Whenever a request waited for a load, the checkpoint came from the disk, not from the page cache."


def _comparison(trials: list[Trial]) -> Iterator[str]:
    """Loading on demand against keeping: what it costs, what it saves, where its time goes."""
    kept = next((trial for trial in trials if trial["strategy"] == "persistent"), None)
    loaded = next((trial for trial in trials if trial["strategy"] == "on-demand"), None)
    if kept and loaded:
        slow, quick = loaded["latency_ms"]["p50"], kept["latency_ms"]["p50"]
        yield (
            f"{_name(loaded)} answers {_ratio(slow / quick)} than {_name(kept)}: half of its requests take"
            f" more than {_ms(slow)}, against {_ms(quick)}."
        )
        yield from _held(kept, loaded)
    if loaded:
        yield from _where_it_goes(loaded)


def _loaders(trials: list[Trial]) -> Iterator[str]:
    """What each other loader makes of keeping and of loading, against the first one that did both."""
    by_loader: dict[str, dict[str, Trial]] = {}
    for trial in trials:
        by_loader.setdefault(f"{trial['loader']} {trial['loader_options']}", {}).setdefault(trial["strategy"], trial)
    base, *others = [pair for pair in by_loader.values() if {"persistent", "on-demand"} <= set(pair)] or [{}]
    for pair in others:
        loader, first = (f"{p['persistent']['loader']} ({p['persistent']['dtype']})" for p in (pair, base))
        kept, loaded = _p50(pair["persistent"]), _p50(pair["on-demand"])
        base_kept, base_loaded = _p50(base["persistent"]), _p50(base["on-demand"])
        adds, base_adds = max(0.0, loaded - kept), max(0.0, base_loaded - base_kept)
        share = f" ({adds / base_adds:.2f} of it)" if base_adds else ""
        yield (
            f"{loader} takes {kept / base_kept:.2f} of the time of {first} when both keep the model, and"
            f" {loaded / base_kept:.2f} of that time when it loads for every request. Loading adds"
            f" {_ms(adds)}, against {_ms(base_adds)}{share}.{_private(pair)}"
        )


def _private(pair: Mapping[str, Trial]) -> str:
    kept, loaded = (pair[name]["memory_mib"]["idle_private"] for name in ("persistent", "on-demand"))
    weights = pair["persistent"]["weights_mib"]
    if kept is None or loaded is None or not weights:
        return ""
    more = max(0.0, kept - loaded)
    return f" Keeping it takes {more:.0f} MiB of private memory, {more / weights:.0%} of the weights."


def _p50(trial: Trial) -> float:
    return float(trial["latency_ms"]["p50"])


def _held(kept: Trial, loaded: Trial) -> Iterator[str]:
    ours, theirs = kept["memory_mib"]["idle_pss"], loaded["memory_mib"]["idle_pss"]
    if ours is None or theirs is None:
        yield "What memory that saves is not known: this system has no /proc."
    elif ours - theirs >= 1:
        yield (
            f"For that, {_name(kept)} holds {ours - theirs:.0f} MiB more between requests"
            f" (PSS {ours:.0f} against {theirs:.0f} MiB)."
        )
    else:
        yield f"{_name(kept)} holds no more memory between requests (PSS {ours:.0f} against {theirs:.0f} MiB)."


def _where_it_goes(trial: Trial) -> Iterator[str]:
    phases = dict(trial["cold"]["phases_ms"])
    if not phases.get("load"):
        return
    parts = {name.removeprefix("load-"): ms for name, ms in phases.items() if name.startswith("load-")}
    split = ", ".join(f"{name} {_ms(ms)}" for name, ms in parts.items())
    yield (
        f"Of a median {_ms(phases['answer'])} with loading, the load takes {_ms(phases['load'])}"
        f"{f' ({split})' if split else ''} and the forward after it {_ms(phases['inference'])}."
    )


def _partly_cold(trial: Trial) -> Iterator[str]:
    share = trial["cold"]["share"]
    if share and 0 < share < 1:
        yield (
            f"Under {_name(trial)}, {share:.0%} of the requests waited for a load and took a median"
            f" {_ms(trial['cold']['phases_ms']['answer'])}."
        )


def _memory_return(trial: Trial) -> Iterator[str]:
    """What became of the memory over many loads, where that was measured."""
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
        yield f"Warning: {_name(trial)} does not give its memory back; look for what keeps it."


def _doubts(summary: Mapping[str, Any]) -> Iterator[str]:
    for sentence in summary["disagreements"]:
        yield f"Warning: the answers differ: {sentence}"
    for failure in summary["failures"]:
        yield f"Warning: {failure['trial']} failed in round {failure['round'] + 1}: {failure['reason']}"
    for trial in summary["trials"]:
        if trial["errors"]:
            yield f"Warning: {_name(trial)} answered {trial['errors']} requests with an error; see samples.jsonl."
        missing = summary["rounds_planned"] - trial["rounds"]
        failed = sum(failure["trial"] == trial["label"] for failure in summary["failures"])
        if missing > failed:
            unfinished = f"{missing - failed} of {summary['rounds_planned']} rounds of {_name(trial)}"
            yield f"Warning: {unfinished} did not run to the end."


def _name(trial: Trial) -> str:
    return str(trial["label"])


def _ratio(value: float) -> str:
    if value >= 1.05:
        return f"{value:.1f} times slower"
    return "no slower"


def _ms(value: float) -> str:
    return f"{value:.0f} ms" if value >= 20 else f"{value:.1f} ms"
