"""Which replica of Ray has which slot: pure, so that a replacement takes the slot, and with it the homes, of its
predecessor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple


class Replica(NamedTuple):
    """A replica whose node is ready, or was."""

    name: str
    address: str
    """Where its node listens: `unix@PATH` or `HOST:PORT`."""
    stops: bool = False
    """Whether Ray is stopping it."""


class Slot(NamedTuple):
    """Who has a slot."""

    replica: str | None
    """None: nobody."""
    address: str | None
    drains: bool = False
    """Whether it only finishes its requests."""


EMPTY = Slot(None, None)


class Slots:
    """The slots of a cluster. The one that was freed last is given away first."""

    def __init__(self, names: Sequence[str], taken: Mapping[str, str] | None = None) -> None:
        """`taken` has the replicas that have slots, by the names of these."""
        self._taken = {slot: replica for slot, replica in (taken or {}).items() if slot in names}
        self._free = [name for name in names if name not in self._taken]
        self.slots: dict[str, Slot] = dict.fromkeys(names, EMPTY)

    @property
    def taken(self) -> dict[str, str]:
        """The replicas that have slots, by the names of these."""
        return dict(self._taken)

    def update(self, replicas: Iterable[Replica]) -> dict[str, Slot]:
        """Give slots to `replicas`, which are all there are. Returns the slots that have changed.

        The slot of a replica that stops goes to one that waits, or drains. A replica for which no slot is free waits.
        """
        known = {replica.name: replica for replica in replicas}
        for slot, name in list(self._taken.items()):
            if name not in known:
                self._release(slot)
        holders = set(self._taken.values())
        for replica in known.values():
            if replica.name not in holders and not replica.stops:
                self._place(replica.name, known)
        changed = {slot: self._state(slot, known) for slot in self.slots}
        changed = {slot: state for slot, state in changed.items() if state != self.slots[slot]}
        self.slots |= changed
        return changed

    def _release(self, slot: str) -> None:
        del self._taken[slot]
        self._free.insert(0, slot)

    def _place(self, name: str, known: Mapping[str, Replica]) -> None:
        stopping = (slot for slot, holder in self._taken.items() if known[holder].stops)
        slot = next(stopping, None)
        if slot is None:
            if not self._free:
                return
            slot = self._free.pop(0)
        self._taken[slot] = name

    def _state(self, slot: str, known: Mapping[str, Replica]) -> Slot:
        if (name := self._taken.get(slot)) is None:
            return EMPTY
        return Slot(name, known[name].address, known[name].stops)
