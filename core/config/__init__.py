"""The types of what users write in YAML, flags and variables, and sentences about what is wrong with it.

It imports `checkpoints`, `system` and the loose modules `errors` and `names`.
"""
