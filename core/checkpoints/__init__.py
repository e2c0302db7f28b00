"""Checkpoints: their references, files, headers, dtypes and labels, and the cache.

It imports `system` and the loose modules `contracts`, `errors` and `names`.
"""
