"""What each node of a trial's cluster did, and which machines the rounds of a run were on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from ..results.figures import NodeFigures
from ..results.records import NodeCounts, TrialEnd
from ..results.summary import MachineRounds
from ..stats.intervals import typical
from ..stats.rounds import MIB, Run


def machines(run: Run) -> list[MachineRounds]:
    """The machines on which rounds ran, each with its rounds."""
    found: dict[str, MachineRounds] = {}
    for number, machine in sorted(run.machines.items()):
        one = MachineRounds(
            name=machine.name,
            processor=machine.environment.processor,
            cores=machine.environment.cores,
            memory_mib=machine.environment.memory_mib,
            commit=machine.environment.commit,
            rounds=[number],
        )
        same = found.get(machine.name)
        rounds = [*same.rounds, number] if same else [number]
        found[machine.name] = one.model_copy(update={"rounds": rounds})
    return list(found.values())


def by_node(ended: Sequence[TrialEnd]) -> list[NodeFigures] | None:
    """The figures of each node; None if the server was no cluster."""
    rounds: defaultdict[str, list[NodeCounts]] = defaultdict(list)
    for end in ended:
        for counts in end.nodes or ():
            rounds[counts.node].append(counts)
    requests = sum(counts.requests for found in rounds.values() for counts in found)
    return [_figures(node, rounds[node], requests) for node in sorted(rounds)] or None


def _figures(node: str, rounds: Sequence[NodeCounts], requests: int) -> NodeFigures:
    own = sum(counts.requests for counts in rounds)
    shares = (
        counts.most_bytes / counts.budget_bytes
        for counts in rounds
        if counts.most_bytes is not None and counts.budget_bytes
    )
    return NodeFigures(
        node=node,
        requests=own,
        share=own / requests if requests else None,
        loads=sum(counts.loads for counts in rounds),
        end_mib=typical([counts.bytes / MIB for counts in rounds]),
        most_mib=_most_mib(counts.most_bytes for counts in rounds),
        budget_mib=_most_mib(counts.budget_bytes for counts in rounds),
        most_of_budget=max(shares, default=None),
    )


def _most_mib(values: Iterable[int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) / MIB if known else None
