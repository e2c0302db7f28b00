"""What the served app answers: one file for each group of routes."""
