"""Checkpoints as ONNX graphs: exported once by a process that has torch, computed by servers that have not."""

import os

# Since 1.29 ONNX Runtime reports how it is used to its maker, by a thread that its import starts; read at that import.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
