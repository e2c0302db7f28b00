"""Experiments, one question per file: a YAML file for `runner.py`, or a script for `python -m experiments.NAME`."""
