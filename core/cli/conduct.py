"""How a strategy decides, as `check` prints it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tabulate import tabulate

from ..report.format import NOTHING, count, listed, number

if TYPE_CHECKING:
    from ..conformance import Conduct  # it imports the server

HEAD = ("traffic", "limit", "× clairvoyant", "× k/m", "× LRU")
HOW_TO_READ = """\
× clairvoyant: money for memory and cold starts, divided by the least possible if all requests were known beforehand.
× k/m: the same, divided by the cost of freeing each model when holding it has cost as much as a cold start.
× LRU: money for cold starts only, divided by the cost of evicting the least recently used model, within the same limit.
A strategy that also frees idle models has more cold starts, and pays less for memory."""


def conduct_text(conduct: Conduct) -> str:
    """A table of what the strategy pays compared to others, and the explanation of its columns."""
    rows = [
        (
            each.scenario,
            each.limit or NOTHING,
            f"{each.clairvoyant:.2f}",
            f"{each.break_even:.2f}",
            NOTHING if each.lru is None else f"{each.lru:.2f}",
        )
        for each in conduct.standings
    ]
    table = tabulate(rows, HEAD, tablefmt="simple", disable_numparse=True, colalign=("left", "left", *["right"] * 3))
    title = f"What the strategy {conduct.strategy} pays, compared to others. Less is better."
    return "\n".join([title, "", table, "", HOW_TO_READ, *_facts(conduct)])


def _facts(conduct: Conduct) -> list[str]:
    """How long its decisions take and how large its state is, as sentences."""
    facts = []
    if conduct.decision_s:
        times = [f"{number(seconds * 1e6, 2)} µs for {member}" for member, seconds in conduct.decision_s.items()]
        facts.append(f"With 300 models a decision takes {listed(times)} (median).")
    if conduct.state_bytes:
        models = count(conduct.state_models, "model")
        facts.append(f"After requests for {models}, its state takes {number(conduct.state_bytes / 1e3, 2)} kB.")
    return facts
