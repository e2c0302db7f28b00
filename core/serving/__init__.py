"""Between a route and a strategy: the engine, its queues, batches and threads, and its metrics. It knows no HTTP.

It imports `residency`, `plugins`, `config` and what these import.
"""
