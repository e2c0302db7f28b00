"""What users write in YAML, flags and variables: its types, and a sentence for what is wrong with it.

It imports `checkpoints`, `system` and the loose modules `errors` and `names`.
"""
