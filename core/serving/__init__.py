"""Between a route and a strategy: queues, batches, threads and metrics, and leases on engines. It knows no HTTP.

It imports `residency`, `plugins`, `config` and what these import.
"""
