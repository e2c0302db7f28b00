"""A plan in sentences."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from ..config.quantities import duration, limit
from ..costs.worth import MONTH
from ..report.format import listed, milliseconds, number
from .bounds import FOREVER
from .candidates import SAME
from .outcome import MILLION
from .targets import MISSED, UNKNOWN
from .timeouts import POISSON_REGRET

WITHIN = 1.1  # times the best fixed setting in hindsight: the target for a choice by the first half
Row = Mapping[str, Any]


def answer(plan: Row) -> list[str]:
    """What to use, what would change that, and how well it was chosen."""
    rows = {row["label"]: row for row in plan["settings"]}
    flips = (flip["sentence"] for flip in plan["flips"])
    return [*_recommendation(plan, rows), *_limit(plan), *flips, *_hindsight(plan), *_clock(plan)]


def grounds(plan: Row) -> list[str]:
    """The basis of the answer."""
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
            f"{traffic} no setting can be recommended: each one exceeds its capacity, misses the target, or is too"
            " large. Lower the rate, ease the target or the limit, or measure a faster loader."
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
        yield f"Under {listed(exceeded)}, more than 128 requests would wait for one model, and some would get 503."


def _limit(plan: Row) -> Iterator[str]:
    """Which settings exceed the limit, and the floor, which is the memory of a server without a model."""
    limit, sizes = plan["limit_mib"], plan["prices"]["sizes"]
    if limit is None:
        return
    what = "largest size" if sizes and limit == sizes[-1]["memory_mib"] else "limit"
    floor = f"A server without a model takes {plan['floor_mib']:.0f} MiB of resident memory between requests"
    if not (too_large := plan["too_large"]):
        yield f"{floor}; every setting stays below the {what} of {limit:.0f} MiB."
        return
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for label, most in too_large.items():
        alike[f"{most:.0f} MiB"].append(label)
    figures = "; ".join(f"{most} under {listed(labels)}" for most, labels in alike.items())
    yield (
        f"Left out, because a server would exceed the {what} of {limit:.0f} MiB in resident memory at some point"
        f" (start-up included): {figures}. {floor}."
    )


def _size(plan: Row, rows: Mapping[str, Row], chosen: Row) -> Iterator[str]:
    """The size that is billed, and which other settings fit it."""
    size = chosen["size"]
    if size is None:
        return
    others = [label for label, row in rows.items() if row is not chosen and row["size"] == size]
    size_of = f"{size['memory_mib']:.0f} MiB and {number(size['cpu'])} cores at {number(size['hour'])} an hour"
    but = ", apart from the cost of waiting" if plan["prices"]["latency_hour"] else ""
    also = f", as are {listed(others)}: they cost the same, whatever they use of it{but}" if others else ""
    yield f"It holds up to {chosen['most_mib']:.0f} MiB, so it is billed for the size with {size_of}{also}."


def _tie(plan: Row, chosen: Row) -> Iterator[str]:
    choice = plan["choice"]
    if choice["same"]:
        yield (
            f"{listed([choice['cheapest'], *choice['same']])} cost the same: without the costs common to all settings,"
            f" they differ by at most {SAME:.0%}, or their order changes with the seed."
        )
    if trifling := choice["trifling"]:
        which = next(iter(trifling)) if len(trifling) == 1 else f"{len(trifling)} settings"
        yield (
            f"{which} would cost {'' if len(trifling) == 1 else 'up to '}{number(max(trifling.values()))} a month more"
            f" than the cheapest, {choice['cheapest']}; less than {plan['trifle']:g} a month is ignored (trifle)."
        )
    if choice["same"] or trifling:
        lowest = f"its mean latency is the lowest, to within {SAME:.0%}"
        why = lowest if choice["by_latency"] else "it is the simplest"
        yield f"Any of these will do; {chosen['label']} is named because {why}."


def _savings(plan: Row, rows: Mapping[str, Row]) -> Iterator[str]:
    """What it saves in a month, against the runner-up and the simplest setting."""
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
        yield f"Cheaper settings that miss {names}: {listed(missed)}."
    unknown = [row["label"] for row in cheaper if UNKNOWN in _verdicts(row) - {MISSED}]
    if unknown and UNKNOWN not in _verdicts(chosen):
        yield f"Cheaper settings for which {names} cannot be judged: {listed(unknown)}."
    for target in chosen["targets"]:
        if target["verdict"] == UNKNOWN:
            yield f"Whether {chosen['label']} meets {_target(target)} is not known: {_why_not_known(plan, target)}."


def _verdicts(row: Row) -> set[str]:
    return {target["verdict"] for target in row["targets"]}


def _target(target: Row) -> str:
    return f"{target['percentile']} ≤ {limit(target['target_ms'] / 1e3)}"


def _why_not_known(plan: Row, target: Row) -> str:
    if plan["requests"] < target["requests_needed"]:
        return f"that needs {target['requests_needed']:,} requests, and there are {plan['requests']:,}"
    low, high = target["share_ci95"]
    return (
        f"{target['share_within']:.2%} of the requests are within it (95 % interval {low:.2%} to {high:.2%}; its upper"
        " bound counts requests that waited for a model's first load as within the target); a longer workload would"
        " decide"
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
        f"{found['by_first']}, chosen from the first half of the requests, costs {found['ratio']:.2f} times as much in"
        f" the second half as the best setting there ({found['best']}), {held} the target of {WITHIN:g}. Costs common"
        " to all settings (an empty server, forward passes) are excluded."
    )


def _clock(plan: Row) -> Iterator[str]:
    if not plan["on_its_own_clock"]:
        yield (
            "The trace is replayed at another speed ('speed'), which changes the gaps that timeouts depend on. So there"
            " is no advice on timeouts, and settings under which models expire are left out. Remove 'speed' to have it."
        )


def _regret(plan: Row, rows: Mapping[str, Row]) -> Iterator[str]:
    if (billing := plan["prices"]["billing"]) != "average":
        yield f"There is no clairvoyant minimum to compare with: under 'billing: {billing}' a timeout saves nothing."
        return
    chosen = rows.get(plan["recommended"])
    if chosen is not None and chosen["regret"] is not None:
        ratio = f"Loads and memory of this setting cost {chosen['regret']:.2f} times the clairvoyant minimum"
        if chosen["regret"] < 1:
            yield (
                f"{ratio}. That minimum assumes that each request is answered at once; here requests wait and share"
                " loads, so there are fewer loads than gaps."
            )
            return
        yield (
            f"{ratio} (all future requests known, each model freed whenever that pays). This is not a target: for"
            " Poisson requests at the break-even rate, every policy without that knowledge costs at least"
            f" {POISSON_REGRET:.2f} times the minimum, on average."
        )


def _eviction(plan: Row) -> Iterator[str]:
    for row in plan["eviction"]:
        but = "" if row["optimum"] else " That minimizes loads, not cost, because cold starts differ in cost."
        models = f"{row['capacity']} model{'' if row['capacity'] == 1 else 's'}"
        yield (
            f"With room for {models} and no overlapping requests, LRU would load {row['lru_loads']} times; the minimum"
            f" is {row['belady_loads']} (Belady, all future requests known).{but}"
        )


def _theory(row: Row, *, timeouts: bool) -> str:
    start = (
        f"{row['model']} with {row['loader']}: keeping it in memory ({row['mib']:.0f} MiB) costs"
        f" {number(row['holding_per_hour'])} an hour; a million cold starts cost"
        f" {number(row['cold_start'] * MILLION)} and delay each caller by {milliseconds(row['cold_start_ms'])}"
    )
    if not row["holding_per_hour"]:
        return f"{start}. Holding it costs nothing, so keeping it pays at every rate."
    if not row["break_even_per_hour"] or not row["cold_start"]:
        return f"{start}. Loading it is free, so keeping it never pays."
    start = f"{start}. Keeping it pays above {number(row['break_even_per_hour'])} requests an hour"
    if not timeouts:
        return f"{start}."
    timeout = f"{_timeout(row['timeout_s'])} idle (k/m)"
    found = [f"{start}. If it is freed after {timeout}, it costs at most twice the clairvoyant minimum."]
    if row["served_timeout_s"] not in (FOREVER, row["timeout_s"]) and _differ(row):
        found.append(
            f"With ttl: auto a server computes this time from the size of its weights ({row['weights_mib']:.0f} MiB)"
            " and its own loads, because it does not know how much memory is charged:"
            f" {_timeout(row['served_timeout_s'])}. The simulation does so, too."
        )
    if row["gaps"]:
        gaps = "only gap" if row["gaps"] == 1 else f"{row['gaps']} gaps"
        found.append(f"On its {gaps} here, the best timeout is {_timeout(row['best_timeout_s'])}.")
    if row["expected_timeout_s"] is not None:
        found.append(f"For arrivals of this kind and rate it is {_timeout(row['expected_timeout_s'])}.")
    return " ".join(found)


def _differ(row: Row) -> bool:
    """Whether the timeouts from the measurements and from what a server knows differ by more than `SAME`."""
    ours, theirs = row["timeout_s"], row["served_timeout_s"]
    return ours == FOREVER or bool(abs(theirs - ours) > SAME * ours)


def _timeout(value: float | str) -> str:
    return value if isinstance(value, str) else duration(value)


def _prices(prices: Row) -> str:
    if sizes := prices["sizes"]:
        each = listed([f"{number(size['hour'])} for {size['memory_mib']:.0f} MiB" for size in sizes])
        return f"Hourly price of each size: {each}; an hour of a caller's waiting {prices['latency_hour']:g}."
    return (
        f"Prices: {prices['memory_gib_hour']:g} for a GiB-hour of memory (charge: {prices['charge']}, billing:"
        f" {prices['billing']}), {prices['cpu_hour']:g} for a core-hour, {prices['latency_hour']:g} for an hour of a"
        " caller's waiting."
    )
