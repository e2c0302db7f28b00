"""The mapped loader's model in a loop, without a server: what `peers.py` holds served figures against.

python experiments/bare_forward.py CHECKPOINT OPTIONS-AS-JSON TEXT SECONDS
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from core.threads import limit_torch

BATCH = 16


def main(checkpoint: Path, options: dict[str, Any], text: str, seconds: float) -> None:
    limit_torch()  # before torch is imported
    from core.models.mapped_loader import MappedLoader

    loader = MappedLoader(**options)
    loader.prepare(checkpoint)
    model = loader.load(checkpoint)
    medians = {}
    for size in (BATCH, 1):
        texts = [text] * size
        laps: list[float] = []
        began = time.perf_counter()
        while not laps or time.perf_counter() - began < seconds:
            lap = time.perf_counter()
            model.predict(texts)
            laps.append(time.perf_counter() - lap)
        medians[size] = statistics.median(laps[len(laps) // 5 :])  # the first ones warm it up
    print(json.dumps({"texts_per_second": BATCH / medians[BATCH], "one_text_ms": medians[1] * 1e3}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3], float(sys.argv[4]))
