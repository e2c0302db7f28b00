"""What a MiB of weights takes, by servers that hold more and less of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from core.planning.resources import Memory, memory_of
from core.report.prose.sentences import say
from core.results.plan_findings import MemoryUncertain, ModelsAlmostFree, Unmeasured
from core.results.records import TrialEnd
from core.stats.rounds import Round
from tests.helpers.synthetic import ended, typed

WEIGHTS = 40.0


def measured(kept: Sequence[float], freed: Sequence[float]) -> Memory:
    """Of servers that hold the one model, or nothing, with so much private memory in each round."""
    rounds = []
    for label, values, unloads in (("kept", kept, 0), ("freed", freed, 1)):
        for number, mib in enumerate(values):
            memory = {"idle_private": mib, "idle_pss": mib}
            end = ended(label, number, memory_mib=memory, unloads=unloads)
            rounds.append(Round(number, typed(TrialEnd, end), []))
    return memory_of(rounds, 1, WEIGHTS, "private")


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
    assert memory_of(rounds, 1, WEIGHTS, "private").per_weight == pytest.approx(0.5)
    [note] = memory_of(rounds[:1], 1, WEIGHTS, "private").notes
    assert note == Unmeasured(what="memory of a model")
    assert say(note).startswith("only servers that hold the same number of models were measured;")
