"""Checkpoints as ONNX graphs: exported once by a process with torch, and computed by servers without torch."""

import os

# Since 1.29 importing ONNX Runtime starts a thread that reports usage to Microsoft. The import reads this variable.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
