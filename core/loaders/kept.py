"""What loads have in common and a process keeps: made once for whoever needs it, bounded, and counted."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Mapping
from threading import Lock
from typing import Any, Generic, NamedTuple, TypeVar
from weakref import WeakSet

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Count(NamedTuple):
    """How many are kept, how many may be, and how many were made since the start."""

    kept: int
    most: int
    made: int


class Kept(Generic[Key, Value]):
    """The latest used values by key. One that is dropped lives on in the models that hold it."""

    def __init__(self, name: str, most: int) -> None:
        """`name` is the plural under which they are counted."""
        self._most = most
        self._lock = Lock()  # never held while anything is made
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._making: defaultdict[Key, Lock] = defaultdict(Lock)
        self._made = 0
        _all[name].add(self)

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """The value of that key; made by one caller, whom others wait for."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
            making = self._making[key]
        with making:
            with self._lock:
                if key in self._values:
                    return self._values[key]
            value = make()
            with self._lock:
                self._keep(key, value)
                self._made += 1
                self._making.pop(key, None)
            return value

    def items(self) -> dict[Key, Value]:
        """A copy of what is kept."""
        with self._lock:
            return dict(self._values)

    def adopt(self, values: Mapping[Key, Value]) -> None:
        """Keep what another process has made."""
        with self._lock:
            for key, value in values.items():
                self._keep(key, value)

    def _keep(self, key: Key, value: Value) -> None:
        self._values[key] = value
        if len(self._values) > self._most:
            self._values.popitem(last=False)

    def count(self) -> Count:
        with self._lock:
            return Count(len(self._values), self._most, self._made)


_all: defaultdict[str, WeakSet[Kept[Any, Any]]] = defaultdict(WeakSet)  # of this process, by name


def counts() -> dict[str, Count]:
    """By name, the sums over all that are kept under it in this process."""
    found = {name: [each.count() for each in kept] for name, kept in _all.items()}
    return {name: Count(*map(sum, zip(*each, strict=True))) for name, each in sorted(found.items()) if each}
