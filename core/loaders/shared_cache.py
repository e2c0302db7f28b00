"""Bounded caches of values that loads share, such as tokenizers. Each value is made once; entries are counted."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Mapping
from threading import Lock
from typing import Any, Generic, NamedTuple, TypeVar
from weakref import WeakSet

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Count(NamedTuple):
    """The numbers of values of caches."""

    kept: int
    """Values that the caches hold."""
    most: int
    """Values that they can hold."""
    made: int
    """Values that were made since the process started."""


class SharedCache(Generic[Key, Value]):
    """The most recently used values by key. A value that is evicted lives on in the models that use it."""

    def __init__(self, name: str, most: int) -> None:
        """`name` is the plural under which the values are counted, `most` is how many are kept."""
        self._most = most
        self._lock = Lock()  # not held while a value is made
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._making: defaultdict[Key, Lock] = defaultdict(Lock)
        self._made = 0
        _all[name].add(self)

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """The value of `key`. If there is none, one caller makes it, and the others wait for that."""
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
        """A copy of the values by key."""
        with self._lock:
            return dict(self._values)

    def adopt(self, values: Mapping[Key, Value]) -> None:
        """Keep values that another process made."""
        with self._lock:
            for key, value in values.items():
                self._keep(key, value)

    def _keep(self, key: Key, value: Value) -> None:
        self._values[key] = value
        if len(self._values) > self._most:
            self._values.popitem(last=False)

    def count(self) -> Count:
        """The numbers of this cache alone."""
        with self._lock:
            return Count(len(self._values), self._most, self._made)


_all: defaultdict[str, WeakSet[SharedCache[Any, Any]]] = defaultdict(WeakSet)  # this process's caches by name


def count_entries() -> dict[str, Count]:
    """The numbers of all caches of this process, summed by name."""
    counts = {name: [cache.count() for cache in caches] for name, caches in _all.items()}
    return {name: Count(*map(sum, zip(*group, strict=True))) for name, group in sorted(counts.items()) if group}
