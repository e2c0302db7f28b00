"""Checkpoints compiled by OpenVINO: once, by a process of its own, and imported by servers."""
