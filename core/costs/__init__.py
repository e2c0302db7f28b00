"""What holding a model and loading it cost, and the rate at which one costs as much as the other.

It imports `stats` and `results`.
"""
