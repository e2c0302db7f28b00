"""One trial, measured: a server process of its own, driven over HTTP, and its samples on disk."""
