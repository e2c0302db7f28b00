"""What to use: the summary of a run, what there is to say of it, its card. It holds no sentences.

It imports `costs`, `stats` and `results`.
"""
