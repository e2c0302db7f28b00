"""A plan in sentences."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from ..decide.amounts import listed, number
from ..decide.timeouts import POISSON_REGRET
from ..decide.verdicts import milliseconds
from ..decide.worth import MONTH
from ..quantities import duration, limit
from .bounds import FOREVER
from .candidates import SAME
from .outcome import MILLION
from .targets import MISSED, UNKNOWN

WITHIN = 1.1  # times the best fixed setting in hindsight: what a choice by the first half is held to
Row = Mapping[str, Any]


def answer(plan: Row) -> list[str]:
    """What to use, where that flips, and how well it was chosen."""
    rows = {row["label"]: row for row in plan["settings"]}
    flips = (flip["sentence"] for flip in plan["flips"])
    return [*_recommendation(plan, rows), *_limit(plan), *flips, *_hindsight(plan), *_clock(plan)]


def grounds(plan: Row) -> list[str]:
    """What that rests on."""
    rows = {row["label"]: row for row in plan["settings"]}
    found = [_theory(row, timeouts=plan["on_its_own_clock"]) for row in plan["theory"]]
    found += [*_regret(plan, rows), *_eviction(plan)]
    return [*found, _prices(plan["prices"]), *(f"Note: {note}" for note in plan["notes"])]


def _recommendation(plan: Row, rows: Mapping[str, Row]) -> Iterator[str]:
    traffic = f"For {plan['requests']} requests in {duration(plan['seconds'])} ({plan['traffic']})"
    if not rows and not plan["too_large"]:
        yield (
            f"{traffic} there is no setting to choose from: name some under 'grid', with a 'memory_budget' that has"
            " room for the largest model."
        )
        return
    chosen = rows.get(plan["recommended"])
    if chosen is None:
        yield (
            f"{traffic} no setting is advised: each one exceeds its capacity, misses the target, or is too large. Lower"
            " the rate, ease the target or the limit, or measure a faster loader."
        )
        return
    yield f"{traffic}, use {chosen['label']}: {_what_it_costs(chosen)}."
    yield from _size(plan, rows, chosen)
    yield from _tie(plan, chosen)
    yield from _savings(plan, rows)
    yield from _targets(plan, rows, chosen)
    small = [row for row in plan["settings"] if row["size"] and row["cores"] > row["size"]["cpu"]]
    if small:
        needs = listed([f"{number(row['cores'])} under {row['label']}" for row in small])
        most = number(small[0]["size"]["cpu"])
        yield f"Left out, because on average its requests need more than the {most} cores of the largest size: {needs}."
    exceeded = [row["label"] for row in plan["settings"] if row["capacity_exceeded"] and row not in small]
    if exceeded:
        yield f"More than 128 requests would wait for one model, so that some get 503, under {', '.join(exceeded)}."


def _limit(plan: Row) -> Iterator[str]:
    """What goes over the limit, and the floor under all settings."""
    limit, sizes = plan["limit_mib"], plan["prices"]["sizes"]
    if limit is None:
        return
    what = "largest size" if sizes and limit == sizes[-1]["memory_mib"] else "limit"
    floor = f"A server that holds no model takes {plan['floor_mib']:.0f} MiB of resident memory between requests"
    if not (too_large := plan["too_large"]):
        yield f"{floor}; every setting stays below the {what} of {limit:.0f} MiB."
        return
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for label, most in too_large.items():
        alike[f"{most:.0f} MiB"].append(label)
    figures = "; ".join(f"{most} under {listed(labels)}" for most, labels in alike.items())
    yield (
        f"Left out, because a server holds more resident memory than the {what} of {limit:.0f} MiB at times, its start"
        f" included: {figures}. {floor}."
    )


def _size(plan: Row, rows: Mapping[str, Row], chosen: Row) -> Iterator[str]:
    """The size that is billed, and which other settings fit it."""
    size = chosen["size"]
    if size is None:
        return
    others = [label for label, row in rows.items() if row is not chosen and row["size"] == size]
    told = f"It holds up to {chosen['most_mib']:.0f} MiB, and pays the size of {size['memory_mib']:.0f} MiB and"
    but = ", but for their callers' waiting" if plan["prices"]["latency_hour"] else ""
    also = f", as do {listed(others)}: they cost the same, whatever they use of it{but}" if others else ""
    yield f"{told} {number(size['cpu'])} cores at {number(size['hour'])} an hour{also}."


def _tie(plan: Row, chosen: Row) -> Iterator[str]:
    choice = plan["choice"]
    if choice["same"]:
        yield (
            f"{listed([choice['cheapest'], *choice['same']])} cost the same: what they cost beyond an empty server and"
            f" the forwards is within {SAME:.0%}, or in an order that changes with the seed."
        )
    if trifling := choice["trifling"]:
        which = next(iter(trifling)) if len(trifling) == 1 else f"{len(trifling)} settings"
        yield (
            f"{which} would cost {'' if len(trifling) == 1 else 'up to '}{number(max(trifling.values()))} a month more"
            f" than the cheapest, {choice['cheapest']}: less than {plan['trifle']:g} a month is not worth deciding"
            " (trifle)."
        )
    if choice["same"] or trifling:
        why = "answers the soonest on average" if choice["by_latency"] else "is the simplest"
        yield f"Take either of these; {chosen['label']} is named because it {why}."


def _savings(plan: Row, rows: Mapping[str, Row]) -> Iterator[str]:
    """In a month, against the runner-up and the simplest setting."""
    choice = plan["choice"]
    runner_up, simplest = choice.get("runner_up"), choice["simplest"]
    parts = []
    if runner_up is not None:
        also = ", which is also the simplest setting," if runner_up == simplest else ","
        what = f"the runner-up, {runner_up}{also} at {_what_it_costs(rows[runner_up])}"
        parts.append(f"{_saved(choice['saves'][runner_up])} {what}")
    if simplest not in (runner_up, plan["recommended"]):
        parts.append(f"{_saved(choice['saves'][simplest])} the simplest setting, {simplest}")
    if parts and simplest == plan["recommended"]:
        parts.append("is the simplest setting, too")
    if parts:
        yield f"In a month at this rate ({MONTH:.0f} hours) it {'; it '.join(parts)}."


def _saved(money: float) -> str:
    return f"saves {number(money)} against" if money >= 0 else f"costs {number(-money)} more than"


def _targets(plan: Row, rows: Mapping[str, Row], chosen: Row) -> Iterator[str]:
    names = listed([f"{name} ≤ {limit(seconds)}" for name, seconds in plan["slo"].items()])
    cheaper = [row for row in rows.values() if row["cost_per_million"] < chosen["cost_per_million"]]
    missed = [row["label"] for row in cheaper if MISSED in _verdicts(row)]
    if missed:
        yield f"What is cheaper misses {names}: {listed(missed)}."
    unknown = [row["label"] for row in cheaper if UNKNOWN in _verdicts(row) - {MISSED}]
    if unknown and UNKNOWN not in _verdicts(chosen):
        yield f"Whether what is cheaper meets {names} is not known: {listed(unknown)}."
    for target in chosen["targets"]:
        if target["verdict"] == UNKNOWN:
            yield f"Whether {chosen['label']} meets {_target(target)} is not known: {_why_not_known(plan, target)}."


def _verdicts(row: Row) -> set[str]:
    return {target["verdict"] for target in row["targets"]}


def _target(target: Row) -> str:
    return f"{target['percentile']} ≤ {limit(target['target_ms'] / 1e3)}"


def _why_not_known(plan: Row, target: Row) -> str:
    if plan["requests"] < target["requests_needed"]:
        return f"that takes {target['requests_needed']:,} requests, and there are {plan['requests']:,}"
    low, high = target["share_ci95"]
    return (
        f"{target['share_within']:.2%} of the requests are within it (95 % interval {low:.2%} to {high:.2%}, of which"
        " the upper end leaves out each model's first load); a longer workload would tell"
    )


def _what_it_costs(row: Row) -> str:
    p99 = f", p99 {milliseconds(row['p99_ms'])}" if row["p99_ms"] is not None else ""
    return (
        f"{number(row['cost_per_million'])} per million requests, mean {milliseconds(row['mean_ms'])}{p99},"
        f" {row['cold_share']:.1%} cold, {row['mean_mib']:.0f} MiB on average"
    )


def _hindsight(plan: Row) -> Iterator[str]:
    found = plan["hindsight"]
    if found is None or found["ratio"] is None:
        return
    held = "within" if found["ratio"] <= WITHIN else "beyond"
    yield (
        f"Chosen by the first half of the requests alone, {found['by_first']} costs in the second half"
        f" {found['ratio']:.2f} times as much as the best setting in hindsight ({found['best']}), {held} the target of"
        f" {WITHIN:g}; what every setting pays, an empty server and the forwards, is left out of that."
    )


def _clock(plan: Row) -> Iterator[str]:
    if not plan["on_its_own_clock"]:
        yield (
            "The trace is not on its own clock: 'speed' changes the gaps that a timeout waits for. So there is no"
            " advice on timeouts, and settings under which models expire are left out. Remove 'speed' to have it."
        )


def _regret(plan: Row, rows: Mapping[str, Row]) -> Iterator[str]:
    if (billing := plan["prices"]["billing"]) != "average":
        yield f"There is no clairvoyant to compare with: under 'billing: {billing}' a timeout saves nothing."
        return
    chosen = rows.get(plan["recommended"])
    if chosen is not None and chosen["regret"] is not None:
        ratio = f"Its cold starts and models in memory cost {chosen['regret']:.2f} times what a clairvoyant would pay"
        if chosen["regret"] < 1:
            yield (
                f"{ratio} who answers each request at once: here they wait for each other, so that several share a load"
                " and there are fewer loads than gaps."
            )
            return
        yield (
            f"{ratio}, who frees each model whenever that pays. That is no target: on Poisson requests at the"
            f" break-even rate, who does not know the future pays at least {POISSON_REGRET:.2f} times as much."
        )


def _eviction(plan: Row) -> Iterator[str]:
    for row in plan["eviction"]:
        but = "" if row["optimum"] else ", but no optimum of the cost, since cold starts differ in theirs"
        yield (
            f"With room for {row['capacity']}, and each request over before the next one comes, the LRU would load"
            f" {row['lru_loads']} times; who knew the future {row['belady_loads']} times (Belady: the fewest possible"
            f"{but})."
        )


def _theory(row: Row, *, timeouts: bool) -> str:
    start = (
        f"{row['model']} under {row['loader']}: {row['mib']:.0f} MiB cost {number(row['holding_per_hour'])} an hour, a"
        f" million cold starts {number(row['cold_start'] * MILLION)} (each caller waits"
        f" {milliseconds(row['cold_start_ms'])} longer)"
    )
    if not row["holding_per_hour"]:
        return f"{start}. Holding it costs nothing, so keeping it pays at every rate."
    if not row["break_even_per_hour"] or not row["cold_start"]:
        return f"{start}; loading it is free, so that keeping it never pays."
    start = f"{start}. Keeping it pays from {number(row['break_even_per_hour'])} requests an hour on"
    if not timeouts:
        return f"{start}."
    timeout = f"{_timeout(row['timeout_s'])} of rest (k/m)"
    found = [f"{start}; freed after {timeout}, it costs at most twice what a clairvoyant would pay."]
    if row["served_timeout_s"] not in (FOREVER, row["timeout_s"]) and _differ(row):
        found.append(
            f"A server that is to find that time itself (ttl: auto) knows its {row['weights_mib']:.0f} MiB of weights"
            f" and its loads, not what is charged for them, and takes {_timeout(row['served_timeout_s'])}; so does this"
            " simulation."
        )
    if row["gaps"]:
        gaps = "only gap" if row["gaps"] == 1 else f"{row['gaps']} gaps"
        found.append(f"On its {gaps} here, the best timeout is {_timeout(row['best_timeout_s'])}.")
    if row["expected_timeout_s"] is not None:
        found.append(f"For arrivals of this kind and rate it is {_timeout(row['expected_timeout_s'])}.")
    return " ".join(found)


def _differ(row: Row) -> bool:
    """Whether the times by what was measured and by what a server knows are apart by more than is a tie."""
    ours, theirs = row["timeout_s"], row["served_timeout_s"]
    return ours == FOREVER or bool(abs(theirs - ours) > SAME * ours)


def _timeout(value: float | str) -> str:
    return value if isinstance(value, str) else duration(value)


def _prices(prices: Row) -> str:
    if sizes := prices["sizes"]:
        each = listed([f"{number(size['hour'])} for {size['memory_mib']:.0f} MiB" for size in sizes])
        return (
            f"Prices of an hour, whatever is used: {each}; {prices['latency_hour']:g} for an hour of callers' waiting."
        )
    return (
        f"Prices: {prices['memory_gib_hour']:g} for a GiB and hour ({prices['charge']}, billed by {prices['billing']}),"
        f" {prices['cpu_hour']:g} for an hour of a core, {prices['latency_hour']:g} for an hour of callers' waiting."
    )
