"""What the served app answers: its routes, the page, errors, limits and connections.

It imports `serving` and what that may import.
"""
