"""Measures a model in a loop without a server, the baseline of `python -m experiments.peers`.

python experiments/peers/bare_forward.py CLASSIFIER TEXT SECONDS

CLASSIFIER is JSON: the arguments of `open_classifier`, or the engine `mapped`, a checkpoint and that loader's options.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engines import open_classifier

from core.system.threads import limit_torch

BATCH = 16


def load_mapped(checkpoint: str, **options: Any) -> Callable[[list[str]], Any]:
    """The `predict` of a model that the loader `mapped` loaded."""
    limit_torch()  # before torch is imported
    from core.loaders.mapped.loader import MappedLoader

    loader = MappedLoader(**options)
    loader.prepare(Path(checkpoint))
    return loader.load(Path(checkpoint)).predict


def main(classifier: dict[str, Any], text: str, seconds: float) -> None:
    engine = classifier.pop("engine")
    classify = load_mapped(**classifier) if engine == "mapped" else open_classifier(engine, **classifier)
    medians = {}
    for size in (BATCH, 1):
        texts = [text] * size
        laps: list[float] = []
        began = time.perf_counter()
        while not laps or time.perf_counter() - began < seconds:
            lap = time.perf_counter()
            classify(texts)
            laps.append(time.perf_counter() - lap)
        medians[size] = statistics.median(laps[len(laps) // 5 :])  # without the first ones, which warm it up
    print(json.dumps({"texts_per_second": BATCH / medians[BATCH], "one_text_ms": medians[1] * 1e3}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
