"""Reading the configuration of other programs, to write it as ours. Nothing here is imported by a server."""
