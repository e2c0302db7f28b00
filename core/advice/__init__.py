"""What to use: the summary of a run, its card, and what a plan shares with it.

It imports `costs`, `stats` and `results`.
"""
