"""Servers of models as commands, which experiments and settings name under `run:`."""
