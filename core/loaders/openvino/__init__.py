"""Checkpoints compiled by OpenVINO, once, in a separate process, and imported by servers."""
