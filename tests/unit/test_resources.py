"""What a MiB of weights takes, by servers that hold more and less of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from core.planning.resources import Memory, memory_of, processor_of
from core.planning.times import Times
from core.report.prose.sentences import say
from core.results.plan_findings import MemoryUncertain, ModelsAlmostFree, Unmeasured
from core.results.records import Sample, TrialEnd
from core.stats.rounds import Round
from tests.helpers.synthetic import ended, sample_of, typed

WEIGHTS = 40.0


def measured(kept: Sequence[float], freed: Sequence[float]) -> Memory:
    """Of servers that hold the one model, or nothing, with so much private memory in each round."""
    rounds = []
    for label, values, unloads in (("kept", kept, 0), ("freed", freed, 1)):
        for number, mib in enumerate(values):
            memory = {"idle_private": mib, "idle_pss": mib}
            end = ended(label, number, memory_mib=memory, unloads=unloads)
            rounds.append(Round(number, typed(TrialEnd, end), []))
    return memory_of(rounds, {"m": WEIGHTS}, "private")


def test_one_odd_process_makes_no_price_of_memory() -> None:
    """As it was measured: the first server of each kind held 79 and 17 MiB more than all later ones."""
    found = measured([369, 290.7, 290.6, 290.8, 290.7], [307, 290, 290, 290, 290])
    assert found.per_weight == pytest.approx(0.7 / WEIGHTS, abs=0.003)
    assert found.base_mib == pytest.approx(290, abs=0.1)
    [note] = found.notes
    assert isinstance(note, ModelsAlmostFree)
    assert (note.per_weight, note.rounds) == (found.per_weight, 5)
    assert note.ci95 is not None
    told = say(note)
    assert told.startswith("keeping a model adds little or no charged memory: 0.02 MiB for each MiB")
    assert "(95 % interval" in told


def test_it_is_compared_within_rounds() -> None:
    """Servers that drift together say nothing of the weights, and less with a model is none."""
    drift = np.array([0, 40, 80, 120, 160, 200])
    found = measured((330 + drift).tolist(), (300 + drift).tolist())
    assert found.per_weight == pytest.approx(30 / WEIGHTS)
    assert found.notes == ()
    assert measured([300.0], [301.0]) == Memory(300.5, 0.0, measured([300.0], [301.0]).notes)


def test_a_wide_interval_is_told() -> None:
    [note] = measured([330, 310, 350, 320, 340], [300, 300, 300, 300, 300]).notes
    assert isinstance(note, MemoryUncertain)
    assert say(note).startswith("a MiB of weights takes 0.75 MiB of memory (95 % interval")
    assert say(note).endswith(
        "5 rounds): the cost of holding a model is equally uncertain; more rounds would narrow it."
    )
    assert measured([330, 310], [300, 300]).notes == ()


def test_rounds_without_a_pair_are_compared_over_all() -> None:
    kept = ended("kept", 0, memory_mib={"idle_private": 320.0})
    freed = ended("freed", 1, memory_mib={"idle_private": 300.0}, unloads=1)
    rounds = [Round(number, typed(TrialEnd, end), []) for number, end in enumerate((kept, freed))]
    assert memory_of(rounds, {"m": WEIGHTS}, "private").per_weight == pytest.approx(0.5)
    [note] = memory_of(rounds[:1], {"m": WEIGHTS}, "private").notes
    assert note == Unmeasured(what="memory of a model")
    assert say(note).startswith("only servers that hold the same number of models were measured;")


def test_what_is_held_is_known_by_name() -> None:
    """A server with the large one of two models holds more than half of their weights."""
    rounds = [
        Round(0, typed(TrialEnd, ended(name, memory_mib={"idle_pss": mib}, resident=held, loads=len(held))), [])
        for name, mib, held in (("kept", 300.0, []), ("freed", 390.0, ["large"]))
    ]
    found = memory_of(rounds, {"small": 20.0, "large": 180.0}, "pss")
    assert (found.base_mib, found.per_weight) == pytest.approx((300.0, 0.5))


def computed(loads: Mapping[str, int], requests: int, seconds: float) -> Round:
    """A round with so many loads of each model, of all requests."""
    cold = [sample_of("t", 5.0, model=model, cold=True) for model, count in loads.items() for _ in range(count)]
    samples = [*cold, *(sample_of("t", 5.0) for _ in range(requests - len(cold)))]
    end = ended("t", loads=sum(loads.values()) + 1, processor_s=seconds)
    return Round(0, typed(TrialEnd, end), [typed(Sample, sample) for sample in samples])


def test_the_cpu_time_of_loads_grows_with_their_size() -> None:
    """A request takes 10 ms, a load 20 and 0.5 for each MiB."""
    weights = {"m": 0.0, "small": 20.0, "large": 180.0}
    rounds = [computed({}, 100, 1.0), computed({"small": 100}, 100, 4.0), computed({"large": 50}, 100, 6.5)]
    found = processor_of(rounds, weights)
    assert (found.request, found.load, found.load_per_mib) == pytest.approx((0.01, 0.02, 0.0005))
    assert found.of_load(100.0, seconds=1.0, average_s=1.0) == pytest.approx(0.07)


def test_loads_of_about_one_size_take_cpu_time_as_they_take_time() -> None:
    """Averages that hardly differ say nothing of the size: a load that takes twice as long computes twice as much."""
    weights = {"m": 0.0, "small": 20.0, "large": 180.0}
    both = [computed({"small": 25, "large": count}, 100, 1 + (25 + count) * 0.07) for count in (25, 26)]
    found = processor_of([computed({}, 100, 1.0), *both], weights)
    assert (found.request, found.load) == pytest.approx((0.01, 0.07))
    assert found.load_per_mib is None
    assert found.of_load(180.0, seconds=0.2, average_s=0.1) == pytest.approx(0.14)
    assert found.of_load(180.0, seconds=0.0, average_s=0.0) == found.load


def test_rarely_asked_models_take_the_times_of_their_size() -> None:
    """With five loads of their own they need none of others."""
    loads = {"small": (5, 20.0), "other": (1, 22.0), "large": (5, 180.0), "between": (1, 60.0)}
    samples = [
        sample_of("t", mib + 11.0, model=model, cold=True, timing={"queue": 0.0, "load": mib, "inference": 10.0})
        for model, (count, mib) in loads.items()
        for _ in range(count)
    ]
    each = Round(0, typed(TrialEnd, ended("t")), [typed(Sample, sample) for sample in samples])
    times = Times([each], "x", {model: mib for model, (_, mib) in loads.items()})
    assert times.cold.of("large").seconds("load") == pytest.approx([0.18] * 5)
    assert times.cold.of("other").seconds("load") == pytest.approx([0.02] * 5 + [0.022])
    assert len(times.cold.of("between").seconds("load")) == len(samples)
    assert times.loads()["other"] == pytest.approx((0.022,))
