"""One trial, measured: a server process of its own, driven over HTTP, and its samples on disk.

It imports `results`, `plugins`, `config` and what these import, and never the server.
"""
