"""Running an experiment: each trial drives a separate server process over HTTP, and writes samples to disk.

It imports `results`, `plugins`, `config` and what these import, and never the server.
"""
