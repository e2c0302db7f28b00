"""The types of a run's records, and the folder that holds them.

It imports the loose modules `errors` and `names`.
"""
