"""Loading checkpoints into memory as models: one file or folder for each loader.

It imports `checkpoints`, `system` and the loose modules `contracts`, `errors` and `names`.
"""
