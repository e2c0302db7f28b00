"""Checkpoints as ONNX graphs: exported once by a process that has torch, computed by servers that have not."""
