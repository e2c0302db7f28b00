"""What is in memory, and why: the pool and its decisions, loads and their records, versions.

It imports `loaders`, `checkpoints`, `system` and loose modules.
"""
