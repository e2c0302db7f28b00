"""What is said of each kind of finding of a plan."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import pytest

from core.report.prose import plan, plan_models, plan_nodes, plan_notes, plan_reference
from core.report.prose.bursts import say_bursts
from core.report.prose.plan import confirmed_in_words, prices_in_words
from core.report.prose.plan_models import say_theory_over_models
from core.report.prose.plan_notes import notes_in_words
from core.report.prose.plan_reference import say_theory
from core.report.prose.sentences import say
from core.results.card import Bursts
from core.results.economics import LoadsLacking, PricesUsed, SizePrice
from core.results.plan import (
    ComparedFigures,
    Confirmed,
    ConfirmedSetting,
    FewestLoads,
    Hindsight,
    LeastColdStarts,
    LoadsInRoom,
    ModelTheory,
    MoneyInRoom,
    PlanNote,
    SimulationError,
)
from core.results.plan_findings import (
    AboveMinimum,
    AnswerFinding,
    BelowMinimum,
    CheaperButMissed,
    CheaperButUnknown,
    CoresLacking,
    CostTheSame,
    EnginesAtATime,
    LoadPriceUnknown,
    LoadsBySize,
    LoadsFromDisk,
    LoadsPricedFrom,
    MemoryUncertain,
    Minimum,
    ModelsAlmostFree,
    NamedAmongTies,
    NoMinimum,
    NoneEligible,
    NoSettings,
    NoteFinding,
    OtherRate,
    OverLimit,
    PlanTraffic,
    QueueExceeded,
    Recommended,
    RunnerUp,
    Saves,
    SettingCost,
    SettingLeftOut,
    SimplestSetting,
    SizeToPay,
    TargetShare,
    TargetUnknown,
    TrifleMore,
    Unmeasured,
    WithinLimit,
)
from core.results.plan_models import (
    CostliestModels,
    MemoryCurve,
    MemoryPoint,
    MemoryStep,
    ModelCosts,
    ModelSaving,
    ModelsFinding,
    ModelsToDrop,
    ModelsToPin,
    Quantiles,
    TheoryOverModels,
    TimeoutQuantiles,
    Trade,
)
from core.results.plan_nodes import OverNodes
from core.results.recorded import Recorded
from tests.helpers.kinds import kinds_said_in

TRAFFIC = PlanTraffic(requests=200, seconds=24_480.0, shown_as="open, poisson arrivals at 0.00833333/s")
COST = SettingCost(
    label="keep-alive (ttl 1min)", cost_per_million=4.5, mean_ms=21.5, p99_ms=30.0, cold_share=0.645, mean_mib=315.2
)
SIZE = SizePrice(memory_mib=384.0, cpu=0.25, hour=0.01)
SLO = {"p99": 0.015}
NODES = OverNodes(
    label="a", nodes=100, routing="homes", busiest=2.33, room=0.98, capacity=None, distinct=3126, models=10_000
)
ROOM = LoadsInRoom(capacity=1, lru_loads=185, belady_loads=180)
BUDGET = MoneyInRoom(capacity=None, memory_budget=512 << 20, lru_cost=0.003, least_cost=0.002)
HINDSIGHT = Hindsight(by_first="a", cost=1.25, best="b", best_cost=1.0, timeouts_cost=None, ratio=1.25, target=1.1)
THEORY = ModelTheory(
    loader="transformers", model="m0", mib=40.0, holding_per_hour=1.736e-4, cold_start=2.82e-7, cold_start_ms=24.0,
    break_even_per_hour=615.5, timeout_s=5.85, weights_mib=50.0, served_timeout_s=4.68, is_served_otherwise=True,
    gaps=199, best_timeout_s="forever", expected_timeout_s=0.0,
)  # fmt: skip
MANY = TheoryOverModels(
    loader="transformers", models=300,
    mib=Quantiles(least=40, lower_quartile=60, median=100, upper_quartile=200, most=1300),
    timeout_s=TimeoutQuantiles(least=2.0, lower_quartile=2.5, median=3.0, upper_quartile=4.0, most="forever"),
    break_even_per_hour=Quantiles(least=600, lower_quartile=900, median=1200, upper_quartile=1440, most=1800),
    requested=280,
    best_timeout_s=TimeoutQuantiles(least=0.0, lower_quartile=0.0, median=12.5, upper_quartile=90.0, most="forever"),
    always=30, never=100,
)  # fmt: skip
COSTS = ModelCosts(model="m7", requests=100, loads=5, holding=1.5, cold_starts=0.5, share=0.4)
CURVE = MemoryCurve(
    step_mib=1024.0, points=[MemoryPoint(budget_mib=9216.0, loads=10, cold_starts=3.0, holding=29.0)],
    pays_until_mib=9216.0, more=MemoryStep(cold_starts=0.5, holding=3.24),
    less=MemoryStep(cold_starts=5.0, holding=3.24),
)  # fmt: skip
SMALL = CURVE.model_copy(update={"step_mib": 32.0, "pays_until_mib": 320.0})
BURSTS = Bursts(
    cheaper_below="on-demand", cheaper_above="persistent", burstiness=8.0, at=800.0, longer_ms=31.2, alone_ms=24.0,
    flip=612.0, alone_flip=816.0, near=820.0, widest=16.0, same=0.05,
)  # fmt: skip
PRICES = PricesUsed(
    memory_gib_hour=0.004445, cpu_hour=0.04048, latency_hour=0.0, charge="pss", billing="average", sizes=()
)


def target(requests_needed: int) -> TargetShare:
    return TargetShare(
        percentile="p99", target_ms=15.0, share_within=0.995, share_ci95=(0.9721, 0.9991),
        requests_needed=requests_needed, verdict="not known",
    )  # fmt: skip


def confirmed(cold_error: float | None, ms_error: float, cost: float | None = 1e-4) -> ConfirmedSetting:
    return ConfirmedSetting(
        label="persistent", rounds=1, measured=ComparedFigures(cold_share=0.0, mean_ms=6.0, cost_per_hour=cost),
        simulated=ComparedFigures(cold_share=0.01, mean_ms=6.3, cost_per_hour=1.05e-4), target=0.1,
        error=SimulationError(cold_share=cold_error, mean_ms=ms_error, cost_per_hour=0.05 if cost else None),
    )  # fmt: skip


SAID: list[tuple[Recorded, str]] = [
    (
        NoSettings(traffic=TRAFFIC),
        (
            "For 200 requests in 6 h 48 min (open, poisson arrivals at 0.00833333/s) there is no setting to choose"
            " from: name some under 'grid', with a 'memory_budget' that has room for the largest model."
        ),
    ),
    (
        NoneEligible(traffic=TRAFFIC),
        (
            "For 200 requests in 6 h 48 min (open, poisson arrivals at 0.00833333/s) no setting can be recommended:"
            " each one exceeds its capacity, misses the target, or is too large. Lower the rate, ease the target or the"
            " limit, or measure a faster loader."
        ),
    ),
    (
        Recommended(traffic=TRAFFIC, setting=COST),
        (
            "For 200 requests in 6 h 48 min (open, poisson arrivals at 0.00833333/s), use keep-alive (ttl 1min): 4.5"
            " per million requests, mean 22 ms, p99 30 ms, 64.5% cold, 315 MiB on average."
        ),
    ),
    (
        Recommended(traffic=TRAFFIC.model_copy(update={"nodes": 100}), setting=COST),
        (
            "For 200 requests in 6 h 48 min (open, poisson arrivals at 0.00833333/s) on 100 nodes, use keep-alive (ttl"
            " 1min): 4.5 per million requests, mean 22 ms, p99 30 ms, 64.5% cold, 315 MiB on average."
        ),
    ),
    (
        NODES,
        (
            "Each request goes to a home of its model. Of its 100 nodes, the busiest one takes 2.3 times the CPU time"
            " of the average one, and none holds more than 98% of its memory_budget. At the end, 3,126 of the 10,000"
            " models were in memory on some node."
        ),
    ),
    (
        NODES.model_copy(update={"capacity": 33, "room": 1.26}),
        (
            "Each request goes to a home of its model. Of its 100 nodes, the busiest one takes 2.3 times the CPU time"
            " of the average one; a limit of 33 models does not limit bytes, so one node holds 1.3 times what"
            " 33 models of average size take. At the end, 3,126 of the 10,000 models were in memory on some node."
        ),
    ),
    (
        NODES.model_copy(update={"capacity": 1, "room": 2.06, "routing": "multiplexed"}),
        (
            "Requests are routed as Ray Serve does for @serve.multiplexed, which no settings of a served app do. Of its"
            " 100 nodes, the busiest one takes 2.3 times the CPU time of the average one; a limit of 1 model does"
            " not limit bytes, so one node holds 2.1 times what 1 model of average size takes. At the end, 3,126"
            " of the 10,000 models were in memory on some node."
        ),
    ),
    (
        NODES.model_copy(update={"room": None}),
        (
            "Each request goes to a home of its model. Of its 100 nodes, the busiest one takes 2.3 times the CPU time"
            " of the average one. At the end, 3,126 of the 10,000 models were in memory on some node."
        ),
    ),
    (
        SizeToPay(most_mib=360.0, size=SIZE, others=[], is_waiting_priced=False, nodes=3),
        (
            "A node holds up to 360 MiB, so each of the 3 is billed for the size with 384 MiB and 0.25 cores at 0.01 an"
            " hour."
        ),
    ),
    (
        CoresLacking(cores={"a": 5.5}, largest=4.0, nodes=2),
        (
            "Left out, because on average the busiest node's requests need more than the 4 cores of the largest size:"
            " 5.5 under a."
        ),
    ),
    (
        SizeToPay(most_mib=360.0, size=SIZE, others=[], is_waiting_priced=False),
        "It holds up to 360 MiB, so it is billed for the size with 384 MiB and 0.25 cores at 0.01 an hour.",
    ),
    (
        SizeToPay(most_mib=360.0, size=SIZE, others=["a", "b"], is_waiting_priced=True),
        (
            "It holds up to 360 MiB, so it is billed for the size with 384 MiB and 0.25 cores at 0.01 an hour, as are a"
            " and b: they cost the same, however much of it they use, apart from the cost of waiting."
        ),
    ),
    (
        CostTheSame(labels=["persistent", "keep-alive (ttl 15min)"], within=0.05),
        (
            "persistent and keep-alive (ttl 15min) cost the same: without the costs common to all settings, they differ"
            " by at most 5%, or their order changes with the seed."
        ),
    ),
    (
        TrifleMore(more={"persistent": 0.42}, cheapest="on-demand", trifle=1.0),
        (
            "persistent would cost 0.42 a month more than the cheapest, on-demand; savings of less than 1 a month"
            " are ignored ('trifle')."
        ),
    ),
    (
        TrifleMore(more={"a": 0.42, "b": 0.5}, cheapest="on-demand", trifle=1.0),
        (
            "2 settings would cost up to 0.5 a month more than the cheapest, on-demand; savings of less than 1 a month"
            " are ignored ('trifle')."
        ),
    ),
    (
        NamedAmongTies(label="persistent", by_latency=True, within=0.05),
        "Any of these will do; persistent is named because its mean latency is the lowest, to within 5%.",
    ),
    (
        NamedAmongTies(label="persistent", by_latency=False, within=0.05),
        "Any of these will do; persistent is named because it is the simplest.",
    ),
    (
        Saves(
            runner_up=RunnerUp(setting=COST, saves=-0.5, is_simplest=False),
            simplest=SimplestSetting(label="persistent", saves=1.25),
            is_simplest=False,
        ),
        (
            "In a month at this rate (730 hours) it costs 0.5 more than the runner-up, keep-alive (ttl 1min), at 4.5"
            " per million requests, mean 22 ms, p99 30 ms, 64.5% cold, 315 MiB on average; it saves 1.25 against the"
            " simplest setting, persistent."
        ),
    ),
    (
        Saves(runner_up=RunnerUp(setting=COST, saves=0.5, is_simplest=True), simplest=None, is_simplest=False),
        (
            "In a month at this rate (730 hours) it saves 0.5 against the runner-up, keep-alive (ttl 1min), which is"
            " also the simplest setting, at 4.5 per million requests, mean 22 ms, p99 30 ms, 64.5% cold, 315 MiB on"
            " average."
        ),
    ),
    (
        Saves(runner_up=RunnerUp(setting=COST, saves=0.5, is_simplest=False), simplest=None, is_simplest=True),
        (
            "In a month at this rate (730 hours) it saves 0.5 against the runner-up, keep-alive (ttl 1min), at 4.5 per"
            " million requests, mean 22 ms, p99 30 ms, 64.5% cold, 315 MiB on average; it is the simplest setting, too."
        ),
    ),
    (
        CheaperButMissed(slo=SLO, labels=["a", "b"]),
        "Cheaper settings that miss p99 ≤ 15 ms: a and b.",
    ),
    (
        CheaperButUnknown(slo=SLO, labels=["a"]),
        "Cheaper settings for which p99 ≤ 15 ms cannot be judged: a.",
    ),
    (
        TargetUnknown(label="persistent", requests=200, target=target(1000)),
        "Whether persistent meets p99 ≤ 15 ms is not known: that needs 1,000 requests, and there are 200.",
    ),
    (
        TargetUnknown(label="persistent", requests=2000, target=target(1000)),
        (
            "Whether persistent meets p99 ≤ 15 ms is not known: 99.50% of the requests are within it (95 % interval"
            " 97.21% to 99.91%; its upper bound counts requests that waited for a model's first load as within the"
            " target); a longer workload would decide."
        ),
    ),
    (
        CoresLacking(cores={"persistent": 0.8, "on-demand": 1.2}, largest=0.5),
        (
            "Left out, because on average its requests need more than the 0.5 cores of the largest size: 0.8 under"
            " persistent and 1.2 under on-demand."
        ),
    ),
    (
        QueueExceeded(labels=["on-demand"], most=128),
        "Under on-demand, more than 128 requests would wait for one model, and some would get 503.",
    ),
    (
        WithinLimit(limit_mib=1024.0, is_size=False, floor_mib=300.0),
        (
            "A server without a model takes 300 MiB of resident memory between requests; every setting stays below the"
            " limit of 1024 MiB."
        ),
    ),
    (
        OverLimit(limit_mib=512.0, is_size=True, floor_mib=300.0, most_mib={"a": 560.0, "b": 560.2, "c": 600.0}),
        (
            "Left out, because a server would exceed the largest size of 512 MiB in resident memory at some point"
            " (start-up included): 560 MiB under a and b; 600 MiB under c. A server without a model takes 300 MiB of"
            " resident memory between requests."
        ),
    ),
    (
        QueueExceeded(labels=["on-demand", "keep-alive (ttl 1s)", "keep-alive (ttl 10s)"], most=128),
        (
            "Under on-demand and keep-alive (ttl 1s, 10s), more than 128 requests would wait for one model, and some"
            " would get 503."
        ),
    ),
    (
        OverLimit(
            limit_mib=512.0, is_size=False, floor_mib=300.0, most_mib={"a (x 1)": 560.0, "b": 600.0, "a (x 2)": 600.0}
        ),
        (
            "Left out, because a server would exceed the limit of 512 MiB in resident memory at some point (start-up"
            " included): 560 MiB to 600 MiB under a (x 1, 2); 600 MiB under b. A server without a model takes 300 MiB"
            " of resident memory between requests."
        ),
    ),
    (
        Trade(
            label="a",
            sibling="b",
            saves_share=0.123,
            cold_share=0.33,
            sibling_cold_share=0.24,
            cold_start=2.82e-7,
            cold_start_ms=24.0,
        ),
        (
            "a costs 12% less than b, without the costs common to all settings, and 33.0% instead of 24.0% of the"
            " requests are cold: at these prices a cold start is cheap (a million cost 0.282, and delay each caller by"
            " 24 ms)."
        ),
    ),
    (
        CostliestModels(label="a", models=2, total=5.0, named=[COSTS, COSTS]),
        "Under a, holding the models and loading them costs 5 a month.",
    ),
    (
        CostliestModels(label="a", models=300, total=5.0, named=[COSTS, COSTS]),
        (
            "Under a, holding the models and loading them costs 5 a month; the 2 of 300 models that cost the most take"
            " 80% of it."
        ),
    ),
    (
        CostliestModels(label="a", models=1, total=5.0, named=[COSTS.model_copy(update={"holding": 0.0})]),
        "Under a, cold starts cost 5 a month.",
    ),
    (
        ModelsToPin(label="a", named=[ModelSaving(model="m7", saves=1.5)], rest=0, saves=1.5),
        (
            "Pin m7 (saves 1.5): in hindsight, keeping each in memory all the time costs the least, if there is room."
            " Compared to a, this saves 1.5 a month in all."
        ),
    ),
    (
        ModelsToDrop(
            label="a", named=[ModelSaving(model="m7", saves=1.5), ModelSaving(model="m8", saves=0.5)], rest=3, saves=2.2
        ),
        (
            "Drop m7 (saves 1.5), m8 (0.5) and 3 more: in hindsight, freeing each after every request costs the least."
            " Compared to a, this saves 2.2 a month in all."
        ),
    ),
    (
        CURVE,
        (
            "More memory pays off up to 9 GiB of weights: 1 GiB more would save 0.5 a month in cold starts and cost"
            " 3.24; 1 GiB less would save 3.24 a month and cost 5 in cold starts. This assumes that the least recently"
            " used model is evicted, requests end at once, and the budget is held all the time."
        ),
    ),
    (
        SMALL.model_copy(update={"more": None}),
        (
            "More memory pays off up to 320 MiB of weights, which has room for all models that are requested: 32 MiB"
            " less would save 3.24 a month and cost 5 in cold starts. This assumes that the least recently used model"
            " is evicted, requests end at once, and the budget is held all the time."
        ),
    ),
    (
        SMALL.model_copy(update={"less": None}),
        (
            "More memory than 320 MiB of weights, which has room for the largest model, does not pay off: 32 MiB more"
            " would save 0.5 a month in cold starts and cost 3.24. This assumes that the least recently used model is"
            " evicted, requests end at once, and the budget is held all the time."
        ),
    ),
    (
        MANY,
        (
            "300 models with transformers (least / quartiles / most): each takes 40 / 60 / 100 / 200 / 1300 MiB of"
            " memory; keeping it pays above 600 / 900 / 1,200 / 1,440 / 1,800 requests an hour; k/m (the cost of a load"
            " divided by that of a second in memory) is 2 s / 2.5 s / 3 s / 4 s / forever; the best timeout on its gaps"
            " here is 0 s / 0 s / 12.5 s / 1 min 30 s / forever. A model that is freed after k/m idle costs at most"
            " twice the clairvoyant minimum. Of 280 models with requests, 30 would cost the least if they were kept all"
            " the time, and 100 if they were freed after each request."
        ),
    ),
    (
        HINDSIGHT,
        (
            "a, chosen from the first half of the requests, costs 1.25 times as much in the second half as the best"
            " setting for that half (b), beyond the target of 1.1. Costs common to all settings (an empty server,"
            " warm answers) are excluded."
        ),
    ),
    (
        HINDSIGHT.model_copy(update={"timeouts_cost": 0.8, "ratio": 1.5625}),
        (
            "a, chosen from the first half of the requests, costs 1.56 times as much in the second half as the best"
            " timeout for each model, beyond the target of 1.1. Such timeouts are known only afterwards; the best"
            " setting for that half (b) costs 1.25 times as much as they do. Costs common to all settings (an empty"
            " server, warm answers) are excluded."
        ),
    ),
    (
        HINDSIGHT.model_copy(update={"best": "a", "best_cost": 1.25, "timeouts_cost": 1.2, "ratio": 1.042}),
        (
            "a, chosen from the first half of the requests, costs 1.04 times as much in the second half as the best"
            " timeout for each model, within the target of 1.1. Such timeouts are known only afterwards; no setting of"
            " this plan costs less in that half. Costs common to all settings (an empty server, warm answers) are"
            " excluded."
        ),
    ),
    (
        NoMinimum(billing="size"),
        "There is no clairvoyant minimum to compare with: under 'billing: size' a timeout saves nothing.",
    ),
    (
        BelowMinimum(ratio=0.9),
        (
            "Loads and memory of this setting cost 0.90 times the clairvoyant minimum. That minimum assumes that each"
            " request is answered at once; here requests wait and share loads, so there are fewer loads than gaps."
        ),
    ),
    (
        AboveMinimum(ratio=1.5, least_ratio=1.582),
        (
            "Loads and memory of this setting cost 1.50 times the clairvoyant minimum (all future requests known, each"
            " model freed whenever that pays). This is not a target: for Poisson requests at the break-even rate, every"
            " policy without that knowledge costs at least 1.58 times the minimum, on average."
        ),
    ),
    (
        FewestLoads(optimum=True, rooms=[ROOM]),
        (
            "If no requests overlap, LRU loads 1.03 times as often as the minimum (Belady, all future requests known):"
            " 185 against 180 loads with room for 1 model."
        ),
    ),
    (
        FewestLoads(optimum=False, rooms=[ROOM, LoadsInRoom(capacity=2, lru_loads=99, belady_loads=78)]),
        (
            "If no requests overlap, LRU loads at most 1.27 times as often as the minimum (Belady, all future requests"
            " known): 99 against 78 loads with room for 2 models, the worst of 2 limits of memory. That minimizes"
            " loads, not cost, because cold starts differ in cost."
        ),
    ),
    (
        LeastColdStarts(loader="mapped", rooms=[BUDGET]),
        (
            "If no requests overlap, cold starts with mapped cost 1.50 times as much under LRU as a lower bound for"
            " any eviction (PFOO-L, all future requests known; it may be out of reach): 0.003 against 0.002 with a"
            " memory_budget of 512 MiB."
        ),
    ),
    (
        LeastColdStarts(
            loader="mapped",
            rooms=[BUDGET, MoneyInRoom(capacity=3, memory_budget=None, lru_cost=0.004, least_cost=0.002)],
        ),
        (
            "If no requests overlap, cold starts with mapped cost at most 2.00 times as much under LRU as a lower bound"
            " for any eviction (PFOO-L, all future requests known; it may be out of reach): 0.004 against 0.002 with"
            " room for 3 models, the worst of 2 limits of memory."
        ),
    ),
    (
        THEORY,
        (
            "m0 with transformers: keeping it in memory (40 MiB) costs 0.000174 an hour; a million cold starts cost"
            " 0.282 and delay each caller by 24 ms. Keeping it pays above 616 requests an hour. If it is freed after"
            " 5.85 s idle (k/m, the cost of a load divided by that of a second in memory), it costs at most twice the"
            " clairvoyant minimum. With ttl: auto or learned, a server computes this"
            " time from the size of its weights (50 MiB) and its own loads, because it does not know how much memory is"
            " charged: 4.68 s. The simulation does so, too. On its 199 gaps here, the best timeout is forever. For"
            " arrivals of this kind and rate it is 0 s."
        ),
    ),
    (
        THEORY.model_copy(update={"holding_per_hour": 0.0}),
        (
            "m0 with transformers: keeping it in memory (40 MiB) costs 0 an hour; a million cold starts cost 0.282 and"
            " delay each caller by 24 ms. Holding it costs nothing, so keeping it pays at every rate."
        ),
    ),
    (
        THEORY.model_copy(update={"break_even_per_hour": None, "cold_start": 0.0, "cold_start_ms": 0.0}),
        (
            "m0 with transformers: keeping it in memory (40 MiB) costs 0.000174 an hour; a million cold starts cost 0"
            " and delay each caller by 0.0 ms. Loading it is free, so keeping it never pays."
        ),
    ),
    (
        PlanNote(loader="mapped (dtype bfloat16)", finding=LoadsFromDisk()),
        "mapped (dtype bfloat16): each load came from disk (page_cache: cold).",
    ),
    (
        EnginesAtATime(parallel={"chat": 1, "code": 4}),
        (
            "engines answer up to 'parallel' requests at a time (chat 1, code 4), each in a time that was measured,"
            " however many tokens it has. Requests that come meanwhile wait for all of these, and so do those for"
            " other models."
        ),
    ),
    (LoadsFromDisk(), "each load came from disk (page_cache: cold)."),
    (
        Unmeasured(what="warm requests"),
        "no request was warm; a warm forward pass is assumed to take as long as after a load.",
    ),
    (
        Unmeasured(what="batches"),
        "batches were not measured; each further text is assumed to cost as much as the first.",
    ),
    (Unmeasured(what="unloads"), "how long an unload takes was not measured; it is assumed to take no time."),
    (
        Unmeasured(what="memory"),
        "memory was not measured; an empty server is assumed to take none, and a model as much as its weights.",
    ),
    (
        Unmeasured(what="memory of a model"),
        (
            "only servers that hold the same number of models were measured; a model is assumed to take as much as its"
            " weights."
        ),
    ),
    (
        Unmeasured(what="CPU time"),
        "CPU time was not measured; a load or a forward pass is assumed to use one core for as long as it lasts.",
    ),
    (
        Unmeasured(what="CPU time of loads"),
        "the CPU time of loads cannot be separated from that of requests; a load is assumed to use one core.",
    ),
    (
        ModelsAlmostFree(per_weight=0.0175, ci95=(0.01, 0.02), rounds=5),
        (
            "keeping a model adds little or no charged memory: 0.02 MiB for each MiB of its weights (95 % interval 0.01"
            " to 0.02, 5 rounds)."
        ),
    ),
    (
        MemoryUncertain(per_weight=0.75, ci95=(0.25, 1.25), rounds=5),
        (
            "a MiB of weights takes 0.75 MiB of memory (95 % interval 0.25 to 1.25, 5 rounds): the cost of holding a"
            " model is equally uncertain; more rounds would narrow it."
        ),
    ),
    (
        LoadPriceUnknown(page_cache="cold", reason=LoadsLacking(recorded="another process maps the file.")),
        (
            "the cost of a load from disk is unknown (another process maps the file); it would be higher than is"
            " assumed here."
        ),
    ),
    (
        LoadsPricedFrom(page_cache="cold", further_ms=30.0, further_processor_s=0.012),
        (
            "loads are priced as loads from disk, because freed memory is assumed to be reused by others: 30.0 ms"
            " longer and 12.0 ms more CPU time each than the loads that requests waited for. Latencies are reported as"
            " measured."
        ),
    ),
    (
        LoadsPricedFrom(page_cache="warm", further_ms=-3.0, further_processor_s=-0.001),
        (
            "loads are priced as loads from the page cache: 3.0 ms shorter and 1.0 ms less CPU time each than the loads"
            " that requests waited for. Latencies are reported as measured."
        ),
    ),
    (
        LoadsBySize(
            models=2,
            start_ms=12.0,
            ms_per_mib=0.45,
            start_processor_ms=10.0,
            processor_ms_per_mib=0.4,
            spread=0.14,
            measured_mib=(22.0, 86.6),
            planned_mib=(40.0, 1331.0),
        ),
        (
            "a load takes 12.0 ms plus 0.450 ms for each MiB of weights; its CPU time is 10.0 ms plus 0.400 ms for each"
            " MiB. These lines are fitted to 2 models of 22 to 86.6 MiB; single loads take 14% more or less (standard"
            " deviation). The plan's models have 40 to 1,330 MiB; beyond the measured sizes, the lines are extended."
        ),
    ),
    (
        LoadsBySize(
            models=3,
            start_ms=12.0,
            ms_per_mib=0.0,
            start_processor_ms=10.0,
            processor_ms_per_mib=0.0,
            spread=0.0,
            measured_mib=(20.0, 90.0),
            planned_mib=(20.0, 90.0),
        ),
        (
            "a load takes 12.0 ms plus 0.000 ms for each MiB of weights; its CPU time is 10.0 ms plus 0.000 ms for each"
            " MiB. These lines are fitted to 3 models of 20 to 90 MiB; single loads take 0% more or less (standard"
            " deviation). The plan's models have 20 to 90 MiB."
        ),
    ),
    (
        OtherRate(measured=100.0, here=0.00833),
        (
            "the CPU time of a request was measured at 100 requests a second, and is used here for 0.00833: it depends"
            " on the rate. A run with this workload measures it."
        ),
    ),
    (
        SettingLeftOut(label="lru-cached (memory_budget 1MiB)", reason="model 'm0' takes 50.0MiB"),
        "lru-cached (memory_budget 1MiB) is left out: model 'm0' takes 50.0MiB.",
    ),
    (
        confirmed(None, 0.05),
        (
            "persistent, measured against simulated: cold 0.0% against 1.0% (no measured request was cold), mean 6.0"
            " against 6.3 ms (an error of +5.0%), loads, models in memory and waiting 0.0001 against 0.000105 an hour"
            " (an error of +5.0%): beyond the target of 10%."
        ),
    ),
    (
        confirmed(0.0, 0.05, None),
        (
            "persistent, measured against simulated: cold 0.0% against 1.0% (an error of +0.0%), mean 6.0 against 6.3"
            " ms (an error of +5.0%), money not known: within the target of 10%."
        ),
    ),
    (
        confirmed(0.0, 0.05, 0.0),
        (
            "persistent, measured against simulated: cold 0.0% against 1.0% (an error of +0.0%), mean 6.0 against 6.3"
            " ms (an error of +5.0%), loads, models in memory and waiting 0 against 0.000105 an hour (none was"
            " measured): beyond the target of 10%."
        ),
    ),
]


@pytest.mark.parametrize(("finding", "sentence"), SAID, ids=lambda each: type(each).__name__)
def test_each_kind_of_finding_is_said(finding: Recorded, sentence: str) -> None:
    assert say(finding) == sentence


def parts_of(union: Any) -> Iterator[type]:
    """The types of a union that is told apart by a field."""
    yield from get_args(get_args(union)[0])


def test_no_kind_is_left_out() -> None:
    said = {type(finding) for finding, _ in SAID}
    assert said >= {*parts_of(AnswerFinding), *parts_of(Minimum), *parts_of(NoteFinding)}
    assert said >= {*parts_of(ModelsFinding), TheoryOverModels, Trade}
    assert said == kinds_said_in(plan, plan_models, plan_nodes, plan_notes, plan_reference)
    unmeasured = {finding.what for finding, _ in SAID if isinstance(finding, Unmeasured)}
    assert unmeasured == set(get_args(Unmeasured.model_fields["what"].annotation))


def test_a_trace_at_another_speed_gives_no_advice_on_timeouts() -> None:
    assert say_theory(THEORY, timeouts=False).endswith(" Keeping it pays above 616 requests an hour.")


def test_many_models_at_another_speed_give_no_advice_on_timeouts() -> None:
    assert say_theory_over_models(MANY, timeouts=False) == (
        "300 models with transformers (least / quartiles / most): each takes 40 / 60 / 100 / 200 / 1300 MiB of memory;"
        " keeping it pays above 600 / 900 / 1,200 / 1,440 / 1,800 requests an hour."
    )


def test_settings_of_a_family_that_are_left_out_are_one_note() -> None:
    left_out = [
        SettingLeftOut(label=f"lru-cached (memory_budget {mib}MiB)", reason=f"{mib} is little") for mib in (1, 2)
    ]
    other = SettingLeftOut(label="persistent", reason="it is too large")
    found: list[SettingLeftOut | LoadsFromDisk] = [*left_out, LoadsFromDisk(), other]
    notes = [PlanNote(loader="mapped", finding=finding) for finding in found]
    assert notes_in_words(notes) == [
        (
            "mapped: lru-cached (memory_budget 1MiB, 2MiB) are left out, lru-cached (memory_budget 1MiB) for example: 1"
            " is little."
        ),
        "mapped: persistent is left out: it is too large.",
        "mapped: each load came from disk (page_cache: cold).",
    ]


def test_nothing_confirmed() -> None:
    assert confirmed_in_words(Confirmed(requests=20, trials=[])) == ["Nothing was confirmed: no trial was finished."]


def test_prices_are_said() -> None:
    assert prices_in_words(PRICES) == (
        "Prices: 0.004445 for a GiB-hour of memory (charge: pss, billing: average), 0.04048 for a core-hour, 0 for an"
        " hour of a caller's waiting."
    )
    sized = PRICES.model_copy(update={"billing": "size", "sizes": (SIZE, SIZE)})
    told = (
        "Hourly price of each size: 0.01 for 384 MiB and 0.25 cores, 0.01 for 384 MiB and 0.25 cores; an hour of a"
        " caller's waiting 0."
    )
    assert prices_in_words(sized) == told


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        ({}, " The break-even rate for bursts is about 75% of the one for evenly spaced arrivals."),
        ({"flip": 820.0}, " The break-even rate for bursts is within 5% of the one for evenly spaced arrivals."),
        ({"flip": None}, " For bursts, no break-even rate was found within a factor of 16 of 820 requests an hour."),
        ({"alone_flip": None}, ""),
    ],
)
def test_bursts_are_said(changes: dict[str, float | None], end: str) -> None:
    assert say_bursts(BURSTS.model_copy(update=changes)) == (
        "With bursty arrivals (simulated; the squared coefficient of variation of the gaps is 8) at 800 requests an"
        " hour,"
        " callers wait 31 ms longer on average under on-demand than under persistent; with evenly spaced arrivals, 24"
        f" ms longer.{end}"
    )
