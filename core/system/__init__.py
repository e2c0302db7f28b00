"""Interfaces to the operating system: memory, threads, files, the page cache.

It imports the loose module `errors`.
"""
