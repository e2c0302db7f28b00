"""The contract of a loader, on the classifier that ships here."""

from __future__ import annotations

import gc
import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..checkpoints.references import resolve
from ..contracts import Prediction
from ..loaders.probe import probe
from ..plugins import Registered
from ..system import memory
from .checks import Broken, Check, holds

TEXTS = ["It was good.", "Not worth the money, and the worst of all the things that I have ever seen.", "fine"]
NEAR = 2e-2  # of scores, alone and in company
LOADS = 12
WARM = 4  # loads after which memory is compared
MIB = 1 << 20


def _made(registered: Registered) -> tuple[Any, Path]:
    loader, checkpoint = registered.cls(**registered.validate({})), resolve("embedded")
    if hasattr(loader, "prepare"):
        loader.prepare(checkpoint)
    return loader, checkpoint


def _tells_sizes(registered: Registered) -> None:
    loader, checkpoint = _made(registered)
    size, model = loader.size(checkpoint), loader.load(checkpoint)
    for what, nbytes in (("size", size), ("a model's nbytes", model.nbytes)):
        is_whole = isinstance(nbytes, int) and nbytes >= 0
        holds(is_whole, f"{what} is {nbytes!r}; it must be a whole number of bytes")
    model.close()


def _answers(registered: Registered) -> None:
    loader, checkpoint = _made(registered)
    model = loader.load(checkpoint)
    probe(model)
    model.close()


def _answers_threads(registered: Registered) -> None:
    loader, checkpoint = _made(registered)
    model = loader.load(checkpoint)
    alone = [Prediction.of(model.predict([text])[0]) for text in TEXTS]
    with ThreadPoolExecutor(4) as pool:
        for together in pool.map(lambda _: [Prediction.of(each) for each in model.predict(TEXTS)], range(8)):
            for one, other in zip(alone, together, strict=True):
                same = one.label == other.label and math.isclose(one.score, other.score, abs_tol=NEAR)
                holds(same, f"a text is {one} alone, and {other} among others, from several threads")
    model.close()


def _closes(registered: Registered) -> None:
    loader, checkpoint = _made(registered)
    model = loader.load(checkpoint)
    model.close()
    model.close()  # which does nothing
    try:
        model.predict(TEXTS)
    except Exception:  # it may say so in any way
        return
    raise Broken("a model answers after it was closed")


def _gives_back(registered: Registered) -> None:
    loader, checkpoint = _made(registered)
    held = []
    for _ in range(LOADS):
        model = loader.load(checkpoint)
        nbytes = model.nbytes
        model.predict(TEXTS[:1])
        model.close()
        del model
        gc.collect()
        if (private := memory.at_rest(os.getpid())[1]) is None:  # this system does not tell
            return
        held.append(private)
    stayed = (held[-1] - held[WARM]) / (LOADS - 1 - WARM) * MIB
    holds(stayed <= 0.1 * max(nbytes, MIB), f"each load leaves {stayed / MIB:.1f} of {nbytes / MIB:.1f} MiB in memory")


def loader_checks(registered: Registered) -> list[Check]:
    """Of one loader."""
    parts = {
        "it tells sizes": _tells_sizes,
        "it answers": _answers,
        "it answers many threads": _answers_threads,
        "its models close": _closes,
        "it gives memory back": _gives_back,
    }
    return [Check(registered, name, run) for name, run in parts.items()]
