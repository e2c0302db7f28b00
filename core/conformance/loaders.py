"""Checks of a loader, with the embedded classifier."""

from __future__ import annotations

import gc
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..checkpoints.references import resolve
from ..loaders.probe import find_task, probe
from ..plugins import Registered
from ..system import memory
from ..tasks.classify import CLASSIFY
from ..tasks.task import Task
from .checks import Check, ContractBroken, require

TEXTS = ["It was good.", "Not worth the money, and the worst of all the things that I have ever seen.", "fine"]
LOADS = 12
WARM_UP = 4  # loads before memory is compared
MIB = 1 << 20


def _construct(registered: Registered) -> tuple[Any, Path]:
    loader, checkpoint = registered.cls(**registered.validate({})), resolve("embedded")
    if hasattr(loader, "prepare"):
        loader.prepare(checkpoint)
    return loader, checkpoint


def _task(model: Any) -> Task:
    return find_task(getattr(model, "task", CLASSIFY.name))


def _items(model: Any) -> list[Any]:
    return [_task(model).from_text(text) for text in TEXTS]


def _check_sizes(registered: Registered) -> None:
    loader, checkpoint = _construct(registered)
    size, model = loader.size(checkpoint), loader.load(checkpoint)
    for what, nbytes in (("size", size), ("a model's nbytes", model.nbytes)):
        is_whole = isinstance(nbytes, int) and nbytes >= 0
        require(is_whole, f"{what} is {nbytes!r}; it must be a whole number of bytes")
    model.close()


def _check_answers(registered: Registered) -> None:
    loader, checkpoint = _construct(registered)
    model = loader.load(checkpoint)
    probe(model)
    model.close()


def _check_threads(registered: Registered) -> None:
    loader, checkpoint = _construct(registered)
    model = loader.load(checkpoint)
    task = _task(model)
    items = _items(model)
    alone = [task.normalize(model.predict([item])[0]) for item in items]
    with ThreadPoolExecutor(4) as pool:
        for together in pool.map(lambda _: [task.normalize(each) for each in model.predict(items)], range(8)):
            for one, other in zip(alone, together, strict=True):
                same = task.apart(one, other) <= 1
                require(same, f"a text is {one} alone, and {other} among others, from several threads")
    model.close()


def _check_close(registered: Registered) -> None:
    loader, checkpoint = _construct(registered)
    model = loader.load(checkpoint)
    model.close()
    model.close()  # must do nothing
    try:
        model.predict(_items(model))
    except Exception:  # any error will do
        return
    raise ContractBroken("a model answers after it was closed")


def _check_memory(registered: Registered) -> None:
    loader, checkpoint = _construct(registered)
    held = []
    for _ in range(LOADS):
        model = loader.load(checkpoint)
        nbytes = model.nbytes
        model.predict(_items(model)[:1])
        model.close()
        del model
        gc.collect()
        if (private := memory.pss_and_private(os.getpid())[1]) is None:  # this system does not report it
            return
        held.append(private)
    stayed = (held[-1] - held[WARM_UP]) / (LOADS - 1 - WARM_UP) * MIB
    require(
        stayed <= 0.1 * max(nbytes, MIB), f"each load leaves {stayed / MIB:.1f} of {nbytes / MIB:.1f} MiB in memory"
    )


def loader_checks(registered: Registered) -> list[Check]:
    """The checks of a loader."""
    parts = {
        "it reports sizes": _check_sizes,
        "it answers": _check_answers,
        "it answers many threads": _check_threads,
        "its models close": _check_close,
        "it gives memory back": _check_memory,
    }
    return [Check(registered, name, run) for name, run in parts.items()]
