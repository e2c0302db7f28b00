"""What a checkpoint is: its reference, its files, their header, dtype and labels.

It imports `system` and the loose modules `contracts`, `errors` and `names`.
"""
